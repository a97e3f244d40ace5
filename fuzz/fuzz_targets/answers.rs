//! What a reward server sends, from its status line on. The first byte says what it is asked for.
#![no_main]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use aisp_llama::reward::{HttpApi, HttpOptions, HttpReward, Reward, RewardText, Sample};
use libfuzzer_sys::fuzz_target;

/// What the server says next.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A server that reads a request to the end of its body, sends the answer and hangs up.
static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                match stream.read(&mut part) {
                    Ok(count @ 1..) => request.extend(&part[..count]),
                    _ => break,
                }
            }
            let _ = stream.write_all(&ANSWER.lock().unwrap());
        }
    });
    address
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, answer)) = bytes.split_first() else {
        return;
    };
    *ANSWER.lock().unwrap() = answer.to_vec();
    let api = match kind % 5 {
        0 => HttpApi::Rerank,
        1 => HttpApi::Tei,
        2 => HttpApi::Classify,
        3 => HttpApi::Pooling,
        _ => HttpApi::Chat,
    };
    let mut reward = HttpReward::new(HttpOptions {
        url: format!("http://{}", *SERVER),
        api,
        text: RewardText::default(),
        key_env: Some("none".into()),
        timeout: Duration::from_secs(5),
        retries: 0,
        ..HttpOptions::default()
    })
    .unwrap();
    let samples = [Sample::new("Say hi.", "Hi."), Sample::new("Say hi.", "Ho.")];
    if let Ok(scores) = reward.score(&samples) {
        assert_eq!(scores.len(), samples.len());
    }
});

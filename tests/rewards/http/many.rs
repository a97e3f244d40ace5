//! Many requests at once, and requests that fail alone.

use std::time::{Duration, Instant};

use aisp_llama::Error;
use aisp_llama::reward::{HttpApi, HttpOptions, HttpReward, Reward, RewardText, Sample};

use super::server::{Asked, Reply, Server, ok};
use super::{reason, rewards, said, samples};

/// Samples with these responses to one prompt.
fn to_one_prompt(responses: &[String]) -> Vec<Sample<'_>> {
    let sample = |response| Sample::new("p", response);
    responses.iter().map(|r| sample(r.as_str())).collect()
}

/// The response that a chat server is asked about.
fn asked_about(asked: &Asked) -> String {
    let question = asked.body["messages"][0]["content"].as_str().unwrap();
    let reply = question.split("========\n").nth(3).unwrap();
    reply.trim_end().to_owned()
}

fn too_long(status: u16) -> Reply {
    Reply::Status(status, "", "maximum context length is 8 tokens".into())
}

#[test]
fn ninety_six_requests_of_a_tenth_of_a_second_take_two_seconds_with_eight_at_once() {
    let server = Server::answering(|asked| {
        std::thread::sleep(Duration::from_millis(100));
        let number: usize = asked_about(asked).parse().unwrap();
        said(&(1 + number % 10).to_string())
    });
    let mut reward = HttpReward::new(HttpOptions {
        parallel: 8,
        ..server.options(HttpApi::Chat)
    })
    .unwrap();
    let responses: Vec<String> = (0..96).map(|i| i.to_string()).collect();
    let begun = Instant::now();
    let answers = reward.score(&to_one_prompt(&responses)).unwrap();
    let took = begun.elapsed();
    println!("http: 96 requests of 0.1 s, 8 at once: {took:?}");
    let wanted: Vec<f64> = (0..96).map(|i| f64::from(1 + i % 10)).collect();
    assert_eq!(rewards(&answers), wanted);
    assert_eq!(server.asked().len(), 96);
    assert!(took <= Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_candidate_that_is_too_long_costs_one_candidate() {
    for status in [400, 408, 413, 422] {
        for parallel in [1, 3] {
            let server = Server::answering(move |asked| match asked_about(asked).as_str() {
                "long" => too_long(status),
                _ => said("7"),
            });
            let mut reward = HttpReward::new(HttpOptions {
                parallel,
                ..server.options(HttpApi::Chat)
            })
            .unwrap();
            let responses = ["a", "long", "b", "long", "c"].map(String::from);
            let samples = to_one_prompt(&responses);
            for _ in 0..4 {
                let answers = reward.score(&samples).unwrap();
                for (answer, response) in answers.iter().zip(&responses) {
                    match response.as_str() {
                        "long" => assert!(reason(answer).contains("maximum context"), "{status}"),
                        _ => assert_eq!(answer.as_ref().unwrap().reward, 7.0),
                    }
                }
                // A batch of such candidates alone is no sign of a broken server.
                assert!(reward.score(&samples[1..2]).unwrap()[0].is_err());
            }
        }
    }
}

#[test]
fn a_document_that_is_too_long_costs_one_document() {
    let server = Server::answering(|asked| {
        let documents = asked.body["documents"].as_array().unwrap();
        if documents.iter().any(|d| d == "long") {
            return too_long(413);
        }
        let results: Vec<_> = (0..documents.len())
            .map(|index| serde_json::json!({"index": index, "relevance_score": 0.5}))
            .collect();
        ok(serde_json::json!({"results": results}).to_string())
    });
    let responses = ["a", "long", "b"].map(String::from);
    let answers = server
        .reward(HttpApi::Rerank)
        .score(&to_one_prompt(&responses))
        .unwrap();
    assert_eq!(answers[0].as_ref().unwrap().reward, 0.5);
    assert!(reason(&answers[1]).contains("413"));
    assert_eq!(answers[2].as_ref().unwrap().reward, 0.5);
    // All of them, then each by itself.
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn a_server_that_refuses_whatever_it_is_asked_ends_the_run() {
    for api in [HttpApi::Chat, HttpApi::Rerank, HttpApi::Tei] {
        let server = Server::answering(|_| Reply::Status(400, "", "no such model".into()));
        let error = server.reward(api).score(&samples()).unwrap_err();
        assert!(matches!(error, Error::Reward(_)));
        assert!(error.to_string().contains("no such model"), "{error}");
    }
}

#[test]
fn one_refusal_for_all_of_them_is_asked_for_once() {
    let server = Server::answering(|_| Reply::Status(401, "", "no key".into()));
    let mut reward = HttpReward::new(HttpOptions {
        parallel: 4,
        ..server.options(HttpApi::Chat)
    })
    .unwrap();
    assert!(matches!(reward.score(&samples()), Err(Error::Reward(_))));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_server_that_is_gone_is_not_asked_for_the_rest_of_a_batch() {
    let server = Server::answering(|_| Reply::Status(503, "Retry-After: 0\r\n", "busy".into()));
    let mut reward = HttpReward::new(HttpOptions {
        parallel: 4,
        retries: 0,
        ..server.options(HttpApi::Pooling)
    })
    .unwrap();
    let responses: Vec<String> = (0..32).map(|i| i.to_string()).collect();
    let samples = to_one_prompt(&responses);
    assert!(reward.score(&samples).unwrap().iter().all(Result::is_err));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn texts_are_sent_as_many_at_once_as_servers_take() {
    let server = Server::answering(|asked| {
        let texts = asked.body["input"].as_array().unwrap();
        let data: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| {
                let number: f64 = text.as_str().unwrap()[2..].parse().unwrap();
                serde_json::json!({"index": index, "probs": [number]})
            })
            .collect();
        ok(serde_json::json!({"data": data}).to_string())
    });
    let mut reward = HttpReward::new(HttpOptions {
        parallel: 2,
        text: RewardText::parse("{prompt}|{response}").unwrap(),
        ..server.options(HttpApi::Classify)
    })
    .unwrap();
    let responses: Vec<String> = (0..70).map(|i| i.to_string()).collect();
    let answers = reward.score(&to_one_prompt(&responses)).unwrap();
    assert_eq!(
        rewards(&answers),
        (0..70).map(f64::from).collect::<Vec<_>>()
    );
    assert_eq!(server.asked().len(), 3);
}

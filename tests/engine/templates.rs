//! Published chat templates, as this program renders them and as Jinja2 does under the settings of
//! transformers: every template of another llama.cpp's sources, byte for byte.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use aisp_llama::llama::{ChatOptions, ChatTemplate, Message, Model, ModelOptions, Think};
use serde_json::{Map, Value, json};

use crate::common::{cached, interpreter, llama_cpp_python, smollm2};

/// What they are asked to render: messages, and variables beside them.
fn conversations() -> BTreeMap<&'static str, Value> {
    let user = json!({"role": "user", "content": "Hi <there>, what's 1 < 2?"});
    let turns = json!([
        {"role": "system", "content": "Be brief.\nAnd kind."},
        user,
        {"role": "assistant", "content": "  Yes: it is. "},
        {"role": "user", "content": "Really? Größe & \"quotes\""},
    ]);
    BTreeMap::from([
        ("one turn", json!({"messages": [user]})),
        ("system and three turns", json!({"messages": turns})),
        (
            "without thinking",
            json!({"messages": [user], "enable_thinking": false}),
        ),
    ])
}

fn rendered(source: &str, conversation: &Value) -> aisp_llama::Result<String> {
    let mut variables: Map<String, Value> = conversation.as_object().unwrap().clone();
    let messages = variables.remove("messages").unwrap();
    let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
    let options = ChatOptions {
        variables,
        think: Some(Think::Auto),
        date: Some("2026-01-05T08:09".parse().unwrap()),
        ..ChatOptions::default()
    };
    ChatTemplate::of(source, "<s>", "</s>", &options).render(&messages, true)
}

#[test]
fn published_templates_are_rendered_as_jinja2_does() {
    let folder = std::fs::read_dir(cached("templates")).unwrap();
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "jinja"));
    paths.sort();
    let conversations = conversations();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/render_templates.py");
    let mut python = Command::new(interpreter())
        .env("PYTHONPATH", llama_cpp_python())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args(&paths)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = serde_json::to_vec(&conversations).unwrap();
    python.stdin.take().unwrap().write_all(&asked).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: Value = serde_json::from_slice(&output.stdout).unwrap();

    let (mut all, mut equal, mut refused, mut only_here) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    for path in &paths {
        let source = std::fs::read_to_string(path).unwrap();
        for (name, conversation) in &conversations {
            let expected = &expected[path.to_str().unwrap()][name];
            let found = rendered(&source, conversation);
            all += 1;
            match (expected["text"].as_str(), found) {
                (Some(text), Ok(found)) if text == found => equal += 1,
                (None, Err(_)) => refused += 1,
                // Templates for tools go through none of them here.
                (None, Ok(_)) => only_here += 1,
                (expected_text, found) => wrong.push(format!(
                    "{}, {name}:\n  Jinja2: {:?} {}\n  here:   {found:?}",
                    path.display(),
                    expected_text,
                    expected["error"]
                )),
            }
        }
    }
    println!(
        "{} templates, {all} renderings: {equal} equal, {refused} refused by both, {only_here} by Jinja2 alone",
        paths.len()
    );
    assert!(paths.len() >= 60, "{}", paths.len());
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn templates_that_llama_cpp_knows_are_named() {
    let model = smollm2();
    let named = |name: &str| {
        let options = ChatOptions {
            template: Some(name.into()),
            ..ChatOptions::default()
        };
        let messages = [
            Message::new("system", "Be brief."),
            Message::new("user", "Größe? <|im_end|>"),
        ];
        let template = ChatTemplate::new(&model, &options)?;
        Ok((
            template.render(&messages, true)?,
            template.tokenize(&model, &messages, true)?,
        ))
    };
    let (text, tokens): (String, Vec<i32>) = named("chatml").unwrap();
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nGröße? \
                    <|im_end|><|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(text, expected);
    let ends = tokens.iter().filter(|&&token| model.is_end(token)).count();
    assert_eq!(ends, 2, "that of the message is text");
    assert!(
        named("llama3")
            .unwrap()
            .0
            .contains("<|start_header_id|>user")
    );
    let error: aisp_llama::Error = named("nobody's").unwrap_err();
    assert!(error.to_string().contains("chatml, "), "{error}");
}

#[test]
fn an_empty_template_is_none() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = crate::tiny::recurrent::file("lfm2")
        .text("tokenizer.chat_template", " \n")
        .write(folder.path(), "tiny.gguf");
    let model = Model::load(&path, &ModelOptions::default()).unwrap();
    let error = ChatTemplate::new(&model, &ChatOptions::default()).unwrap_err();
    assert!(error.to_string().contains("missing or empty"), "{error}");
}

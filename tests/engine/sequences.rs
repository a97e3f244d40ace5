//! Who holds what: what was decoded once is not decoded again, and only what has the same bits
//! counts as the same.

use std::sync::Arc;

use aisp_llama::llama::{Context, ContextOptions, LogitsRoute, Row, Token};

use crate::common::smollm2;

const COUNT: usize = 8;

fn context() -> Context {
    let options = ContextOptions {
        sequences: COUNT,
        context: 64,
        threads: aisp_llama::default_threads(),
        logits: LogitsRoute::Graph,
        ..ContextOptions::default()
    };
    Context::new(Arc::clone(&smollm2()), &options).unwrap()
}

fn tokens(count: usize) -> Vec<Token> {
    (0..count as Token).map(|i| 1000 + 37 * i).collect()
}

/// The bits of the logits behind what `sequence` holds, `token` decoded there.
fn bits(context: &mut Context, sequence: usize, token: Token, position: usize) -> Vec<u32> {
    let rows: Vec<Row> = (0..COUNT)
        .map(|s| match s == sequence {
            true => Row { token, position },
            false => context.idle_row(s).unwrap(),
        })
        .collect();
    context.step(&rows, None, false).unwrap();
    let logits = context.logits(sequence).unwrap();
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn a_beginning_is_decoded_once_and_copied_or_cut_back_to() {
    let mut context = context();
    let prompt = tokens(40);
    assert_eq!(context.hold(0, &prompt).unwrap(), 40);
    assert_eq!(context.hold(5, &prompt).unwrap(), 0);
    let first = bits(&mut context, 0, 7, 40);
    // A step decodes a token of idle sequences as well; it is cut off again.
    assert_eq!(context.hold(5, &prompt).unwrap(), 0);
    assert_eq!(bits(&mut context, 5, 7, 40), first);
    // What was written behind it is cut off.
    assert_eq!(context.hold(0, &prompt).unwrap(), 0);
    assert_eq!(bits(&mut context, 0, 7, 40), first);
    // In another sequence, once nobody holds it.
    for sequence in 0..COUNT {
        context.release(sequence).unwrap();
    }
    assert_eq!(context.hold(2, &prompt).unwrap(), 40);
    assert_eq!(bits(&mut context, 2, 7, 40), first);
}

#[test]
fn what_was_decoded_otherwise_is_decoded_again() {
    let mut context = context();
    let prompt = tokens(40);
    context.hold(0, &prompt).unwrap();
    // A part of a longer beginning.
    assert_eq!(context.hold(1, &prompt[..20]).unwrap(), 20);
    context.rewind(0, 30).unwrap();
    assert_eq!(context.hold(2, &prompt[..30]).unwrap(), 30);
    // A prompt with a response that was written token by token.
    context.hold(0, &prompt).unwrap();
    bits(&mut context, 0, 7, 40);
    let longer = [&prompt[..], &[7]].concat();
    assert_eq!(context.hold(3, &longer).unwrap(), 41);
}

#[test]
fn a_token_that_does_not_follow_is_refused() {
    let mut context = context();
    context.hold(0, &tokens(4)).unwrap();
    let row = |position| Row { token: 7, position };
    for position in [3, 5] {
        let rows: Vec<Row> = (0..COUNT)
            .map(|s| row(if s == 0 { position } else { 0 }))
            .collect();
        let error = context.step(&rows, None, false).unwrap_err();
        assert!(error.to_string().contains("holds 4 tokens"), "{error}");
    }
    assert!(context.hold(COUNT, &tokens(4)).is_err());
    assert!(context.share(0, COUNT).is_err());
}

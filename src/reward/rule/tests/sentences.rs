use super::score;

/// Asserts the number of sentences of texts.
fn assert_sentences(cases: &[(usize, &str)]) {
    for (count, text) in cases {
        let is = (0..20).find(|n| score(&format!("sentences={n}"), text) == 1.0);
        assert_eq!(is, Some(*count), "{text:?}");
    }
}

#[test]
fn abbreviations_and_initials_end_no_sentence() {
    assert_sentences(&[
        (1, "Dr. Smith met Mr. Jones."),
        (1, "Mrs. Lee and Prof. Brown live on St. James Street."),
        (1, "Take fruit, e.g. Apples, i.e. Malus."),
        (1, "The U.S. Senate meets at 9 a.m. Monday."),
        (2, "He lives in the U.S. The senate meets there."),
        (2, "We met at 5 p.m. She was late."),
        (1, "See No. 5 and Fig. 3 on pp. 10 to 12."),
        (2, "No. He did not."),
        (2, "The meeting is at 10 a.m. Bring your notes."),
        (1, "On Jan. 5, 2020, at 3.5 p.m. EST, it rained."),
        (1, "Mr. and Mrs. Bond of Apple Inc. and others came."),
        (1, "J. R. R. Tolkien wrote it."),
        (1, "J.R.R. Tolkien and C. S. Lewis met."),
        (1, "J. A. Smith and C. I. Lewis met."),
        (2, "I like vitamin C. It helps."),
        (1, "Acme Inc. Chairman Bob Jr. Smith spoke."),
        (2, "Bring cups, plates, etc. Then sit down."),
        (1, "He has a Ph.D. Thesis in Washington D.C. Hall."),
        (1, "Das ist z.B. Anton, d.h. Bertas Bruder."),
        (1, "mr. brown met dr. white."),
        (1, "It was (approx. Five) miles."),
    ]);
}

#[test]
fn numbers_end_no_sentence() {
    assert_sentences(&[
        (1, "Pi is 3.14 and e is 2.718."),
        (1, "Version 1.2.3 costs $5.00 at example.com today."),
        (2, "I have 2. You have 3."),
        (2, "1. First point.\n2. Second point."),
        (2, "1. First point\n2. Second point"),
        (2, "1. First. 2. Second."),
        (3, "1) One.\n2) Two.\n10) Ten."),
        (2, "(1) One.\n(2) Two."),
        (1, "1."),
    ]);
}

#[test]
fn ellipses_end_a_sentence_where_a_capital_follows() {
    assert_sentences(&[
        (1, "Well... maybe."),
        (1, "Well… maybe."),
        (1, "Well... I think so."),
        (1, "Wait . . . what"),
        (2, "He left... Nobody knew."),
        (2, "He left… Nobody knew."),
        (1, "And so on..."),
    ]);
}

#[test]
fn quotes_and_brackets_behind_a_stop_belong_to_its_sentence() {
    assert_sentences(&[
        (2, "She said \"Stop.\" Then she left."),
        (2, "She said “Stop!” Then she left."),
        (1, "“Why?” he asked."),
        (1, "\"Go!\" she said."),
        (2, "(This is one.) This is two."),
        (2, "**Bold one.** _Second._"),
        (1, "It (really!) works."),
        (2, "What?! Yes!!!"),
        (1, "Great! 🎉"),
        (2, "hello there. how are you?"),
    ]);
}

#[test]
fn a_line_break_ends_no_sentence_but_a_blank_line_or_a_list_item_does() {
    assert_sentences(&[
        (1, "A sentence that is\nwrapped over two lines."),
        (1, "A sentence that is\r\nwrapped over\r\nthree lines."),
        (2, "A title\n\nA sentence."),
        (2, "A title\r\n\r\nA sentence."),
        (2, "# A title\nA sentence."),
        (3, "Buy:\n- milk\n- eggs"),
        (3, "Buy:\n* milk\n  and cream\n• eggs"),
        (1, "It is Dr.\nSmith."),
        (2, "One ends. Another\nends too."),
        (1, "Hello.\n---\n"),
    ]);
}

#[test]
fn stops_of_other_scripts_end_sentences() {
    assert_sentences(&[
        (2, "今天很好。明天呢？"),
        (3, "すごい！本当？はい。"),
        (1, "「行こう。」と彼は言った。"),
        (2, "「行こう。」「はい。」"),
        (2, "یہ ایک ہے۔ وہ دو ہے۔"),
        (2, "यह एक है। वह दो है।"),
        (2, "هل هذا جيد؟ نعم."),
        (2, "ဒါကောင်းတယ်။ ဟုတ်ကဲ့။"),
        (2, "Мир. Труд и т.д. были."),
        (2, "See https://example.com/?q=a.b for more. Then go!"),
    ]);
}

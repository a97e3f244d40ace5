use super::score;

fn assert_scores(cases: &[(&str, &str, bool)]) {
    for (rule, response, met) in cases {
        let is = score(rule, response);
        assert_eq!(is == 1.0, *met, "{is} for {rule} and {response:?}");
    }
}

#[test]
fn words_are_counted_in_scripts_without_spaces() {
    for (count, text) in [
        (3, "ภาษาไทยง่าย"),
        (3, "ພາສາລາວງ່າຍ"),
        (3, "ខ្ញុំចូលចិត្តភាសាខ្មែរ"),
        (3, "မြန်မာစကားပြောတယ်"),
        (3, "今天天气很好。"),
        (3, "我爱北京"),
        (5, "東京に行きました。"),
        (3, "日本語 and English"),
        (2, "서울에 살아요"),
        (2, "कैफ़े में"),
        (5, "Don't pay 10,000 or 3.14!"),
        (1, "cafe\u{301}"),
        (2, "well-known 👍"),
        (1, "…word…"),
    ] {
        assert_eq!(score(&format!("words={count}"), text), 1.0, "{text}");
    }
}

#[test]
fn texts_are_compared_by_what_they_say_not_by_their_bytes() {
    assert_scores(&[
        ("contains=café", "A cafe\u{301}!", true),
        ("contains=cafe\u{301}", "A café!", true),
        ("excludes=café", "cafe\u{301}", false),
        ("contains=straße", "STRASSE", true),
        ("contains=STRASSE", "die Straße", true),
        ("contains=istanbul", "İSTANBUL", true),
        ("contains=İstanbul", "istanbul", true),
        ("contains=ΟΔΟΣ", "οδος", true),
        ("contains=file", "the ﬁle", true),
        ("contains=ABC", "ＡＢＣ", true),
        ("contains=don't", "I don’t", true),
        ("contains=\"a\"", "\u{201c}A\u{201d}", true),
        ("contains=cooperate", "co\u{ad}operate", true),
        ("starts-with=straße", "STRASSE 5", true),
        ("starts-with=Élan", "E\u{301}lan vital", true),
        ("starts-with=In my opinion", "in  my\nOpinion, yes", true),
        ("ends-with=café", "The CAFE\u{301}", true),
        ("ends-with=that is all.", "That\nis all.", true),
    ]);
}

#[test]
fn exact_texts_are_compared_byte_by_byte() {
    assert_scores(&[
        ("contains-exact=café", "cafe\u{301}", false),
        ("contains-exact=straße", "STRASSE", false),
        ("contains-exact=very", "every day", true),
        ("contains-exact=Very", "every day", false),
        ("!contains-exact=rail", "the trailer", false),
        ("contains-exact=a b", "a  b", false),
    ]);
}

#[test]
fn a_part_of_a_word_is_not_the_word() {
    assert_scores(&[
        ("excludes=very", "every day", true),
        ("excludes=very", "very good", false),
        ("excludes=very", "_very_ good", false),
        ("contains=very", "every day", false),
        ("contains=very", "Very, very good", true),
        ("contains=cafe", "cafe\u{301}", false),
        ("contains=art", "start party", false),
        ("contains=dog", "the dog's bone", true),
        ("contains=eau", "de l’eau", true),
        ("excludes=don", "I don’t", true),
        ("excludes=3", "3.14 or 1,3", true),
        ("contains=3", "1, 2, 3.", true),
        ("excludes=京都", "東京都", true),
        ("contains=東京", "東京に行きました", true),
        ("contains=ไทย", "ภาษาไทยง่าย", true),
        ("excludes=กา", "กาแฟ", true),
        ("contains=서울", "서울에 살아요", true),
        ("contains=हिन्द", "हिन्दी", false),
        ("contains=C++", "I like C++!", true),
        ("excludes=a a", "xa a a", false),
    ]);
}

#[test]
fn phrases_match_across_white_space_and_line_breaks() {
    assert_scores(&[
        ("contains=lost dog", "a lost\n  dog", true),
        ("contains=lost dog", "a lost\r\ndog", true),
        ("contains=lost dog", "a lost\u{a0}dog", true),
        ("contains=lost dog", "a lost dogma", false),
        ("excludes=as an AI", "As  an\nAI, I", false),
        ("excludes=\" you \"", "You are", false),
        ("contains=?", "what?Yes", true),
        ("contains=...", "well…", true),
    ]);
}

#[test]
fn a_text_that_nobody_sees_is_refused() {
    let error = super::Rules::parse("contains=\" \"")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("contains") && error.contains("no character"),
        "{error}"
    );
}

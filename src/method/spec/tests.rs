use super::*;

fn refused(text: &str) -> (String, String) {
    match text.parse::<MethodSpec>().unwrap_err() {
        Error::Field { field, reason } => (field, reason),
        other => panic!("{other}"),
    }
}

#[test]
fn every_method_has_valid_defaults_and_says_each_of_its_settings_once() {
    for &entry in METHODS {
        let spec = MethodSpec::of(entry);
        let fields: Vec<&String> = spec.all.as_object().unwrap().keys().collect();
        let mut fields: Vec<&str> = fields.into_iter().map(String::as_str).collect();
        let said = entry.settings.iter().flat_map(|group| group.settings);
        let mut said: Vec<&str> = said.map(|setting| setting.name).collect();
        fields.sort_unstable();
        said.sort_unstable();
        assert_eq!(fields, said, "{}", entry.name);
        // What a setting needs beside it, or can stand for, is there.
        for group in entry.settings {
            let named = group.only_with.iter().map(|(name, _)| *name);
            let instead = group.settings.iter().filter_map(|s| s.instead_of);
            for name in named.chain(instead) {
                assert!(fields.contains(&name), "{}: {name}", entry.name);
            }
        }
        // A field that the struct does not have is refused by the struct as well.
        assert!((entry.build)(&Map::from_iter([("nonsense".into(), 1.into())])).is_err());
        for (name, _) in entry.presets {
            preset(entry, name).unwrap();
        }
    }
}

#[test]
fn a_setting_that_the_method_does_not_have_is_refused_with_those_it_has() {
    let (field, reason) = refused("best-of-n:elites=8");
    assert_eq!(field, "elites");
    assert!(
        reason.contains("`temp`, `top-k`, `top-p`, `min-p`"),
        "{reason}"
    );
    let (field, reason) = refused("greedy:lambda=3");
    assert_eq!(field, "lambda");
    assert!(reason.contains("none"), "{reason}");
    assert_eq!(refused("none").0, "method");
    assert_eq!(refused("search:elites").0, "method");
}

#[test]
fn a_setting_that_nobody_reads_is_refused() {
    assert!(
        refused("search:temp=0.5")
            .1
            .contains("`draw-tokens` = true")
    );
    assert!(refused("aisp:preset=paper:steer=1").0 == "steer");
    let both = |first: Value, second: Value| {
        let names = [("sigma".to_owned(), first), ("logit-sd".to_owned(), second)];
        let aisp = MethodSpec::named("aisp").unwrap();
        aisp.with([&Map::from_iter(names)])
    };
    let given = both("auto".into(), 0.5.into()).unwrap();
    assert_eq!(given.all()["logit-sd"], 0.5);
    let reason = both(0.3.into(), 0.5.into()).unwrap_err().to_string();
    assert!(
        reason.contains("logit-sd: it only goes with `sigma` = auto"),
        "{reason}"
    );
    "search:draw-tokens=true:temp=0.5"
        .parse::<MethodSpec>()
        .unwrap();
}

#[test]
fn numbers_may_be_written_as_people_do() {
    for (text, number) in [
        (".7", 0.7),
        ("1.", 1.0),
        ("+2", 2.0),
        ("08", 8.0),
        ("1e-3", 1e-3),
    ] {
        assert_eq!(parse_value(text).as_f64(), Some(number), "{text}");
    }
    assert_eq!(
        parse_value("0.70710678118654757"),
        Value::from(0.5_f64.sqrt())
    );
    assert_eq!(parse_value("NaN"), Value::from("NaN"));
    assert_eq!(parse_value("true"), Value::Bool(true));
}

#[test]
fn values_of_another_kind_are_named() {
    for (text, field, words) in [
        ("search:elites=x", "elites", "\"x\"; must be a whole number"),
        ("search:elites=-1", "elites", "-1; must be a whole number"),
        ("search:steer=NaN", "steer", "\"NaN\"; must be a number"),
        (
            "aisp:sigma=big",
            "sigma",
            "\"big\"; must be a number or auto",
        ),
        (
            "aisp:draw-tokens=3",
            "draw-tokens",
            "3; must be true or false",
        ),
        ("search:cut=x", "cut", "entropy or even"),
        ("search:price=x", "price", "limit, off or a number"),
        ("aisp:preset=none.json", "preset", "paper"),
    ] {
        let (found, reason) = refused(text);
        assert_eq!(found, field, "{text}");
        assert!(reason.contains(words), "{text}: {reason}");
    }
}

#[test]
fn the_later_way_to_say_the_same_counts() {
    let given = |text: &str| {
        let spec: MethodSpec = text.parse().unwrap();
        Value::from(spec.given().clone()).to_string()
    };
    assert_eq!(given("aisp:sigma=0.5:logit-sd=1"), r#"{"logit-sd":1}"#);
    assert_eq!(given("aisp:logit-sd=1:sigma=auto"), r#"{"sigma":"auto"}"#);
}

#[test]
fn the_same_settings_are_the_same_method() {
    let spec = |text: &str| text.parse::<MethodSpec>().unwrap();
    assert_eq!(spec("search"), spec("search:elites=4"));
    assert_ne!(spec("search"), spec("search:elites=5"));
    assert_ne!(spec("best-of-n"), spec("soft-best-of-n"));
    assert_eq!(spec("best-of-n:temp=1").label(), "best-of-n:temp=1");
}

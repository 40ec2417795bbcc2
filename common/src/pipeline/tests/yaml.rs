//! YAML, right and wrong.

use std::time::Instant;

use serde_json::json;

use crate::pipeline::from_yaml;

#[test]
fn yaml_is_the_json_that_it_stands_for() {
    let text = "name: nightly\nnodes:\n  - &a {id: a, type: parallel}\n  - <<: *a\n    id: b\n\
                edges:\n  - {from: a, to: b, when: always}\ntimeout: 1h\nfail_fast: no\n";
    let value = from_yaml(text).unwrap();
    assert_eq!(value["nodes"][1], json!({"id": "b", "type": "parallel"}));
    assert_eq!(value["timeout"], json!("1h"));
    let fast =
        from_yaml("a: true\nb: 'no'\nc: 1.5\nd: 007\ne: ~\nf: 18446744073709551615").unwrap();
    assert_eq!((&fast["a"], &fast["b"], &fast["c"]), (&json!(true), &json!("no"), &json!(1.5)));
    assert_eq!((&fast["e"], &fast["f"]), (&json!(null), &json!(u64::MAX)));
}

#[test]
fn yaml_that_is_wrong_or_a_bomb_is_refused() {
    let bomb = {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..12 {
            let alias = vec![format!("*a{}", n - 1); 10].join(",");
            text.push_str(&format!("a{n}: &a{n} [{alias}]\n"));
        }
        text
    };
    for text in [
        "a: [",
        "a: 1\na: 2",
        "a: 1\n---\nb: 2",
        "? {a: 1}\n: 2",
        &bomb,
        &"[".repeat(100_000),
        &"- ".repeat(100_000),
        &format!("a: {}", "x".repeat(20 << 20)),
        "a: !!binary x y",
        "a: .nan",
        "a: *b",
    ] {
        let started = Instant::now();
        let refused = from_yaml(text);
        let begin: String = text.chars().take(30).collect();
        assert!(refused.is_err(), "{begin}: {refused:?}");
        assert!(refused.unwrap_err().len() < 1000, "{begin}");
        assert!(started.elapsed().as_secs() < 5, "{begin} took {:?}", started.elapsed());
    }
}

//! Inputs against their schemas, and schemas.

use serde_json::{Value, json};

use super::{errors, with};
use crate::pipeline::InputSchema;

#[test]
fn an_input_is_checked_against_its_schema() {
    let schema = InputSchema::compile(&json!({
        "type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {
            "n": {"type": "integer", "minimum": 1}, "c": {"enum": ["red", "blue"]}, "k": {"const": 1},
            "s": {"type": "string", "maxLength": 3}, "p": {"pattern": "^a"}, "l": {"$ref": "#/$defs/l"},
            "never": false, "o": {"oneOf": [{"type": "string"}, {"type": "null"}]},
        },
        "$defs": {"l": {"type": "array", "items": {"type": "integer"}, "prefixItems": [{"type": "string"}]}},
    }))
    .unwrap();
    assert_eq!(
        schema.check(
            &json!({"n": 1, "c": "red", "k": 1, "s": "abc", "p": "a", "l": ["x", 1], "o": null})
        ),
        []
    );
    for (input, pointer, words) in [
        (json!([]), "", "must be of type object, and is a list"),
        (json!({}), "/n", "`n` is missing"),
        (json!({"n": "x"}), "/n", "must be of type integer, and is a string"),
        (json!({"n": 0}), "/n", "minimum of 1"),
        (json!({"n": 1, "a/b": 1}), "/a~1b", "no field `a/b`"),
        (json!({"n": 1, "c": "green"}), "/c", "must be one of [\"red\",\"blue\"], and is `green`"),
        (json!({"n": 1, "k": 2}), "/k", "must be 1, and is 2"),
        (json!({"n": 1, "s": "x".repeat(100_000)}), "/s", "longer than 3"),
        (json!({"n": 1, "p": "b"}), "/p", "must match the pattern `^a`, and is `b`"),
        (json!({"n": 1, "l": [1, "x"]}), "/l/1", "integer"),
        (json!({"n": 1, "never": 1}), "/never", "nothing is allowed"),
        (json!({"n": 1, "o": 7}), "/o", "the value"),
    ] {
        let found = schema.check(&input);
        assert!(
            found
                .iter()
                .any(|e| e.pointer == pointer && e.detail.contains(words) && e.detail.len() < 1000),
            "{pointer} {words}: {found:#?}"
        );
    }
    let many = json!({"n": 1, "l": (0..10_000).map(|_| "x").collect::<Vec<_>>()});
    assert_eq!(schema.check(&many).len(), 100);
}

#[test]
fn a_wrong_input_schema_is_an_error_of_the_definition() {
    for (schema, pointer, words) in [
        (json!({"type": "objekt"}), "/input_schema/type", ""),
        (
            json!({"properties": {"a": {"minimum": "1"}}}),
            "/input_schema/properties/a/minimum",
            "number",
        ),
        (json!([]), "/input_schema", ""),
        (json!({"pattern": "("}), "/input_schema/pattern", ""),
        (
            json!({"$ref": "https://example.com/schema.json"}),
            "/input_schema",
            "a reference leads within the schema",
        ),
        (
            json!({"$ref": "file:///etc/passwd"}),
            "/input_schema",
            "a reference leads within the schema",
        ),
        (json!({"$ref": "#/$defs/nope"}), "/input_schema", ""),
        (
            json!({"properties": {"a": {"$ref": "http://127.0.0.1:1/x"}}}),
            "/input_schema",
            "a reference leads within the schema",
        ),
        (json!({"$schema": "https://example.com/mine"}), "/input_schema", ""),
        (
            json!({"properties": {"a": {"$ref": "#"}}}),
            "/input_schema/properties/a/$ref",
            "cannot be recursive",
        ),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}),
            "/input_schema/$defs/a/items/$ref",
            "cannot be recursive",
        ),
        (
            json!({"properties": {"a/b": {"$dynamicRef": "#x"}}}),
            "/input_schema/properties/a~1b",
            "`$ref`",
        ),
        (
            json!({"$defs": {"a": {"$id": "https://a"}}}),
            "/input_schema/$defs/a/$id",
            "only at the top",
        ),
        (json!({"$ref": "#anchor"}), "/input_schema/$ref", "within the schema"),
    ] {
        let found = errors(&with("/input_schema", schema.clone()));
        assert!(
            found
                .iter()
                .any(|error| error.pointer.starts_with(pointer) && error.detail.contains(words)),
            "{schema}: {found:#?}"
        );
    }
    for schema in [
        json!(true),
        json!({}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://a"}),
        json!({"properties": {"$ref": {"type": "string"}, "$id": {"const": {"$ref": "x"}}}}),
        json!({"properties": {"a": {"$ref": "#/$defs/x"}, "b": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"minimum": 1}}}),
    ] {
        assert_eq!(errors(&with("/input_schema", schema)), []);
    }
}

#[test]
fn a_hostile_input_schema_does_no_harm() {
    let run = || {
        let chain =
            |n: usize| (0..n).fold(json!({}), |schema, _| json!({"properties": {"a": schema}}));
        let links = |n: usize| {
            let defs: serde_json::Map<String, Value> = (0..n)
                .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
                .chain([(format!("d{n}"), json!({}))])
                .collect();
            json!({"$ref": "#/$defs/d0", "$defs": defs})
        };
        let doubling = |n: usize| {
            let defs: serde_json::Map<String, Value> = (0..n)
                .map(|n| {
                    let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
                    (format!("d{n}"), json!({"allOf": [next, next]}))
                })
                .chain([(format!("d{n}"), json!({"type": "object"}))])
                .collect();
            json!({"$ref": "#/$defs/d0", "$defs": defs})
        };
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            json!({"not": {"$ref": "#"}}),
            json!({"anyOf": [{"$dynamicRef": "#x"}], "$dynamicAnchor": "x"}),
            json!({"pattern": "^(a+)+$"}),
            json!({"pattern": "(?:a{1000}){1000}"}),
            json!({"pattern": "(".repeat(10_000)}),
            chain(40),
            chain(60),
            links(90),
            links(50_000),
            json!({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}),
            json!({"properties": {"a": {"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#"}]}}, "$defs": {"x": {"$ref": "#"}}, "required": ["z"]}),
            doubling(60),
        ] {
            if let Ok(schema) = InputSchema::compile(&schema) {
                schema.check(&json!("a".repeat(50) + "!"));
                schema.check(&json!({"a": {"a": {"a": 1}}}));
                schema.check(&(0..120).fold(json!(1), |inner, _| json!({"a": inner})));
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

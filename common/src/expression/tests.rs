#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

use super::*;

/// Evaluates with an input, the outputs of nodes, and on an edge.
fn evaluate(source: &str) -> Result<Value, String> {
    let input = json!({
        "n": 3, "name": "Ada", "list": [1, 2, 3], "nothing": null, "user": {"mail": "a@b.c", "a-b": {"c.d": 7}},
        "big": u64::MAX, "small": i64::MIN, "float": 0.1, "items": "an attribute, not a method", "flag": false,
    });
    let outputs = HashMap::from([
        ("a".to_owned(), json!({"rows": [{"id": 1}, {"id": 2}], "ok": true})),
        ("my-id".to_owned(), json!({"x.y": {"z": 1}})),
    ]);
    let (run, output) = (json!({"id": "r1"}), json!({"result": true}));
    let scope = Scope {
        input: &input,
        outputs: &outputs,
        run: &run,
        output: Some(&output),
        secrets: None,
        item: None,
    };
    Expression::compile(source)?.evaluate(&scope)
}

fn render(template: Value, input: Value) -> Result<Value, String> {
    let run = json!({"id": "r1"});
    let outputs = HashMap::from([("a".to_owned(), json!({"n": 2}))]);
    let scope = Scope {
        input: &input,
        outputs: &outputs,
        run: &run,
        output: None,
        secrets: None,
        item: None,
    };
    let template = Template::compile(&template).map_err(|errors| {
        errors.into_iter().map(|e| format!("{}: {}", e.pointer, e.detail)).collect::<String>()
    })?;
    template.render(&scope)
}

#[test]
fn expressions_come_to_json() {
    for (source, value) in [
        ("1 + 2", json!(3)),
        ("input.n * 2 > 5 and not input.flag", json!(true)),
        ("not output.result", json!(false)),
        ("output.result", json!(true)),
        ("run.id ~ '/' ~ input.name | lower", json!("r1/ada")),
        ("input.list | sum", json!(6)),
        ("nodes.a.output.rows | map(attribute='id') | list", json!([1, 2])),
        ("nodes.a.output.rows[0].id", json!(1)),
        ("nodes.a.output.rows[-1]['id']", json!(2)),
        ("nodes['my-id'].output['x.y'].z", json!(1)),
        ("nodes['my-id'].output['x.y'].z + 0", json!(1)),
        ("nodes.skipped.output", json!(null)),
        ("nodes.skipped.output is none", json!(true)),
        ("input.user['a-b']['c.d'] + 1", json!(8)),
        ("input.items ~ ''", json!("an attribute, not a method")),
        ("input.nothing", json!(null)),
        ("input.missing is defined", json!(false)),
        ("input.missing | default('x')", json!("x")),
        ("input.user.missing is undefined", json!(true)),
        ("'n' in input", json!(true)),
        ("input | length", json!(10)),
        ("{'a': [input.n, none], 'b': 1.5}", json!({"a": [3, null], "b": 1.5})),
        ("range(3) | list", json!([0, 1, 2])),
        ("'yes' if input.n == 3 else 'no'", json!("yes")),
        ("{{ input.n }}", json!(3)),
        ("  {{ input.n > 2 }}  ", json!(true)),
    ] {
        assert_eq!(evaluate(source), Ok(value), "{source}");
    }
}

#[test]
fn numbers_are_unharmed() {
    for (source, value) in [
        ("input.big", json!(u64::MAX)),
        ("[input.big][0]", json!(u64::MAX)),
        ("[input.small][0]", json!(i64::MIN)),
        ("[input.float][0]", json!(0.1)),
        ("input.big - 1", json!(u64::MAX - 1)),
        ("2.0 * 2", json!(4.0)),
    ] {
        assert_eq!(evaluate(source), Ok(value), "{source}");
    }
    for source in ["input.big * 2", "1.0 / 0", "0.0 / 0.0", "-1.0 / 0", "10.0 ** 400"] {
        assert!(evaluate(source).is_err(), "{source} is {:?}", evaluate(source));
    }
}

#[test]
fn an_undefined_name_is_an_error_that_names_it() {
    for (source, name) in [
        ("input.missing", "input.missing"),
        ("input.missing == 1", "input.missing"),
        ("input.user.missing > 1", "input.user.missing"),
        ("not input.missing", "input.missing"),
        ("input.missing or true", "input.missing"),
        ("input.missing.deeper", "input.missing"),
        ("input.missing.deeper == 1", "input.missing"),
        ("input.user['a-b'].x", "input.user[\"a-b\"].x"),
        ("nodes.a.output.nope", "nodes.a.output.nope"),
        ("nodes.a.output.nope ~ 'x'", "nodes.a.output.nope"),
        ("nodes.skipped.output.x", "nodes.skipped.output.x"),
        ("[input.missing]", "undefined"),
        ("input.list[7] + 1", "input.list[7]"),
        ("run.nope and true", "run.nope"),
        ("1 if input.missing else 2", "input.missing"),
    ] {
        let error = evaluate(source).unwrap_err();
        assert!(error.contains(name), "{source}: {error}");
    }
}

#[test]
fn what_an_expression_must_not_say_does_not_compile() {
    for (source, part) in [
        ("", "empty"),
        ("   ", "empty"),
        ("1 +", "does not parse"),
        ("input.n)", "does not parse"),
        ("'open", "does not parse"),
        ("inptu.n", "`inptu` is not defined"),
        ("yes", "`yes` is not defined"),
        ("nodes", "constant"),
        ("nodes[input.name].output", "constant"),
        ("nodes['a' ~ 'b'].output", "constant"),
        ("nodes | length", "constant"),
        ("nodes.items()", "constant"),
        ("nodes[0].output", "constant"),
        ("nodes.a", "only its output"),
        ("nodes.a.state", "only its output"),
        ("nodes.a['out' ~ 'put']", "only its output"),
        ("secrets['my-token']", "must be followed by a name"),
        ("secrets", "must be followed by a name"),
        ("debug()", "no function `debug`"),
        ("nope(1)", "no function `nope`"),
        ("input.n | nope", "no filter `nope`"),
        ("input.n is nope", "no test `nope`"),
        ("[x for x in input.list]", "does not parse"),
    ] {
        let error = Expression::compile(source).map(|_| ()).unwrap_err();
        assert!(error.contains(part), "{source}: {error}");
    }
}

#[test]
fn an_expression_knows_what_it_names() {
    for (source, names) in [
        ("1", vec![]),
        ("nodes.a.output", vec!["a"]),
        ("nodes.b.output.x == nodes['a-1'].output[0] and input.n", vec!["a-1", "b"]),
        ("nodes['a.b'].output.nodes.c.output", vec!["a.b"]),
        ("{'nodes': input.nodes}", vec![]),
        ("[nodes.a.output, [nodes.b.output | default(nodes.c.output)]]", vec!["a", "b", "c"]),
        ("input.list[nodes.a.output.n]", vec!["a"]),
    ] {
        let expression = Expression::compile(source).unwrap();
        assert_eq!(expression.names().iter().collect::<Vec<_>>(), names, "{source}");
    }
    assert!(Expression::compile("output.x").unwrap().names_output());
    assert!(!Expression::compile("nodes.a.output.output").unwrap().names_output());
}

#[test]
fn only_a_boolean_is_true_or_false() {
    let empty = json!({"s": "true", "n": 1, "l": [1], "z": null, "t": true});
    let scope = Scope {
        input: &empty,
        outputs: &NoOutputs,
        run: &Value::Null,
        output: None,
        secrets: None,
        item: None,
    };
    let is_true = |source: &str| Expression::compile(source).unwrap().is_true(&scope);
    assert_eq!(is_true("input.t"), Ok(true));
    assert_eq!(is_true("not input.t"), Ok(false));
    for (source, was) in [
        ("input.s", "the string \"true\""),
        ("input.n", "the number 1"),
        ("input.l", "a list of 1"),
        ("input.z", "null"),
        ("input", "an object"),
    ] {
        let error = is_true(source).unwrap_err();
        assert!(error.contains(was) && error.contains(source), "{error}");
    }
    assert!(is_true("output.x").unwrap_err().contains("edge"), "there is no output here");
}

#[test]
fn a_whole_expression_keeps_its_type_and_a_text_is_a_text() {
    for (template, value) in [
        (json!("{{ input.n }}"), json!(3)),
        (json!("{{input.n}}"), json!(3)),
        (json!("{{- input.n -}}"), json!(3)),
        (json!("{{ -input.n }}"), json!(-3)),
        (json!("{{ input.list }}"), json!([1, {"x": null}])),
        (json!("{{ input.n > 2 }}"), json!(true)),
        (json!("{{ '}}' }}"), json!("}}")),
        (json!("n={{ input.n }}"), json!("n=3")),
        (json!("{{ input.n }} "), json!("3 ")),
        (json!("{{ input.n }}\n"), json!("3\n")),
        (json!("{{ input.n }}{{ input.n }}"), json!("33")),
        (json!("{% if input.n > 2 %}many{% else %}few{% endif %}"), json!("many")),
        (json!("{% for x in range(3) %}{{ loop.index }}{{ x }};{% endfor %}"), json!("10;21;32;")),
        (json!("{% set y = input.n + 1 %}{{ y }}"), json!("4")),
        (json!("<b>{{ input.html }}</b>"), json!("<b><i>&</i></b>")),
        (json!("{\"json\": {{ input.list | tojson }}}"), json!("{\"json\": [1, {\"x\": null}]}")),
        (json!("{% raw %}{{ input.n }}{% endraw %}"), json!("{{ input.n }}")),
        (
            json!("no { braces } # here {# no comment #}"),
            json!("no { braces } # here {# no comment #}"),
        ),
        (
            json!({"a": ["{{ nodes.a.output.n }}", 1], "b": {"c": "{{ run.id }}!"}, "d": null}),
            json!({"a": [2, 1], "b": {"c": "r1!"}, "d": null}),
        ),
        (json!({"{{ key }}": 1}), json!({"{{ key }}": 1})),
    ] {
        let input = json!({"n": 3, "list": [1, {"x": null}], "html": "<i>&</i>"});
        assert_eq!(render(template.clone(), input), Ok(value), "{template}");
    }
}

#[test]
fn an_error_in_a_template_names_its_place() {
    for (template, part) in [
        (json!({"a": ["x", "{{ input.missing }}"]}), "/a/1: `input.missing` is undefined"),
        (json!({"a/b": "text {{ input.missing }}"}), "/a~1b: "),
        (json!("{{ input.missing }}"), "`input.missing` is undefined"),
        (json!({"a": "{{ input.x }"}), "/a: it does not parse"),
        (json!({"a": "{% if %}"}), "/a: it does not parse"),
        (json!({"a": "{% include 'x' %}"}), "/a: it does not parse"),
        (json!({"a": "{% import 'x' as y %}"}), "/a: it does not parse"),
        (json!({"a": "{% extends 'x' %}"}), "/a: it does not parse"),
        (json!({"a": "{% macro x() %}{% endmacro %}"}), "/a: it does not parse"),
        (json!({"a": "{% set input = 1 %}"}), "/a: `input` cannot be given another value"),
        (json!({"a": "{% for nodes in [1] %}{% endfor %}"}), "/a: `nodes` cannot"),
        (
            json!({"a": "{{ secrets.x }}"}),
            "/a: `secrets` are there only in the config of an action",
        ),
        (
            json!({"a": "x {{ nodes[input.n].output }}"}),
            "/a: `nodes` must be followed by a constant",
        ),
        (json!({"a": "x {{ nope }}"}), "/a: `nope` is not defined"),
    ] {
        let error = render(template.clone(), json!({})).unwrap_err();
        assert!(error.contains(part), "{template}: {error}");
    }
}

#[test]
fn all_that_does_not_compile_is_named() {
    let errors = Template::compile(
        &json!({"a": "{{ x }}", "b": ["{{ 1 + }}", "fine"], "c": "{{ secrets[input.y] }}"}),
    )
    .unwrap_err();
    let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/a", "/b/0", "/c"]);
}

#[test]
fn a_template_without_marks_is_constant() {
    let value = json!({"a": [1, "x { y }", {"b": null}]});
    let template = Template::compile(&value).unwrap();
    assert!(template.is_constant() && template.names().is_empty());
    assert_eq!(render(value.clone(), json!(null)), Ok(value));
    assert!(!Template::compile(&json!(["{{ 1 }}"])).unwrap().is_constant());
}

#[test]
fn work_is_bounded_by_fuel() {
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    let grows = "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}";
    for template in [loops, grows, "{{ 'x' * 90000000 }} ", "{{ ([0] * 90000000) | sum }}"] {
        let started = std::time::Instant::now();
        let error = render(json!(template), json!({})).unwrap_err();
        assert!(error.contains("too many steps"), "{template}: {error}");
        assert!(started.elapsed().as_secs() < 20, "{template}: {:?}", started.elapsed());
    }
    // Small in memory, huge when written.
    let shared = "[[[[0] * 1000] * 1000] * 1000] * 1000";
    assert!(evaluate(shared).unwrap_err().contains("values"), "{:?}", evaluate(shared));
    let texts = "[['x' * 1000000] * 1000] * 1000";
    assert!(evaluate(texts).is_err());
    let many: Vec<_> = (0..=engine::MOST).map(|n| format!("{{{{ {n} }}}}")).collect();
    assert!(render(json!(many), json!({})).unwrap_err().contains("at most 1000"));
}

#[test]
fn nothing_overflows_a_threads_stack() {
    let nest = |open: &str, inner: &str, close: &str, n| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let mut sources = vec![];
    for n in [50, 140, 149, 299, 400, 100_000] {
        sources.extend([
            nest("(", "1", ")", n),
            nest("[", "1", "]", n),
            nest("{'a':", "1", "}", n),
            nest("not ", "true", "", n),
            nest("-", "1", "", n),
            nest("", "1", "+1", n),
            nest("", "1", "~1", n),
            nest("", "2", "**1", n),
            nest("", "input", ".a", n),
            nest("", "input", "[0]", n),
            nest("", "input", "|list", n),
            nest("", "1", " if true", n),
            nest("1 if false else ", "1", "", n),
            nest("", "1", " and 1", n),
            nest("", "1", " == 1", n),
            nest("range(", "1", ")", n),
            nest("", "1", " is defined", n),
        ]);
    }
    let texts: Vec<String> = [50, 140, 299, 400, 100_000]
        .into_iter()
        .flat_map(|n| {
            [
                nest("{% if true %}", "x", "{% endif %}", n),
                nest("{% if false %}{% el", "if true %}x{% endif %}", "", 1)
                    .replace("if false", &"if false %}{% el".repeat(n)),
                nest("{% for x in [1] %}", "x", "{% endfor %}", n),
                nest("{% filter upper %}", "x", "{% endfilter %}", n),
                nest("{% set x %}", "x", "{% endset %}", n),
                nest("{% with %}", "x", "{% endwith %}", n),
            ]
        })
        .collect();
    let deep = (0..126).fold(json!(1), |value, _| json!([value]));
    let run = move || {
        for source in &sources {
            // Whether it compiles does not matter here, as long as it comes back.
            let _ = evaluate(source);
            let _ = render(json!(format!("x {{{{ {source} }}}}")), json!({}));
        }
        for text in &texts {
            let _ = render(json!(text), json!({}));
        }
        let deep = json!({ "deep": deep });
        assert_eq!(render(json!("{{ input.deep }}"), deep.clone()), Ok(deep["deep"].clone()));
        assert!(render(json!("{{ [input.deep] }}"), deep.clone()).is_ok());
        assert!(render(json!("x {{ input.deep }}"), deep.clone()).is_ok());
        assert!(
            render(json!("{{ [[[[input.deep]]]] }}"), deep.clone())
                .unwrap_err()
                .contains("nested deeper")
        );
        assert!(render(json!("{{ input.deep | tojson }}"), deep.clone()).is_ok());
        assert!(render(json!("{{ input.deep == input.deep }}"), deep.clone()).is_ok());
        assert!(Template::compile(&deep).is_ok());
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn what_is_compiled_is_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Expression>();
    is_shared::<Template>();
}

#[test]
fn secrets_are_named_and_read_where_there_are_some() {
    let config = json!({
        "whole": "{{ secrets.TOKEN }}", "part": "Bearer {{ secrets.TOKEN }}", "made": "{{ secrets['KEY'] | length }}"
    });
    let template = Template::compile(&config).unwrap();
    assert_eq!(template.secrets().iter().collect::<Vec<_>>(), ["KEY", "TOKEN"]);
    let (null, secrets) = (Value::Null, json!({"TOKEN": "sesame", "KEY": "1234"}));
    let scope = Scope {
        input: &null,
        outputs: &NoOutputs,
        run: &null,
        output: None,
        secrets: Some(&secrets),
        item: None,
    };
    let rendered = template.render(&scope).unwrap();
    assert_eq!(rendered, json!({"whole": "sesame", "part": "Bearer sesame", "made": 4}));
    let without = Scope { secrets: Some(&null), ..scope };
    assert!(template.render(&without).unwrap_err().contains("undefined"));
}

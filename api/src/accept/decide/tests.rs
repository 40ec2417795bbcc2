use common::pipeline::InputSchema;

use super::*;
use crate::submission::Submission;

fn action() -> Submission {
    Submission::of_action(json!({"action": "echo"}), &tools::catalogue()).expect("it is right")
}

fn echo(key: Option<(&str, &str)>) -> Asked {
    asked(vec![action()], key, false)
}

fn of_pipeline(input: Value) -> Asked {
    let submission = Submission::of_pipeline("nightly".into(), json!({"input": input}));
    asked(vec![submission.expect("it is right")], None, false)
}

fn asked(wanted: Vec<Submission>, key: Option<(&str, &str)>, is_list: bool) -> Asked {
    Asked {
        caller: "ada".into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        key: key.map(|(key, body)| super::super::Key {
            route: "POST /v1/actions".into(),
            key: key.into(),
            body_hash: body.into(),
        }),
        wanted: wanted.into_iter().map(Ok).collect(),
        is_list,
    }
}

fn round(asked: &[Asked]) -> Round<'_> {
    Round::of(asked)
}

fn nightly(paused: bool) -> Submittable {
    Submittable {
        id: uuid::Uuid::from_u128(1),
        name: "nightly".into(),
        version: 3,
        paused,
        lane: "default".into(),
        has_schema: true,
    }
}

fn run_of(answer: &Result<Reply, ApiError>) -> &str {
    answer.as_ref().expect("it was accepted").body["id"].as_str().expect("it has an id")
}

fn kind_of(answer: &Result<Reply, ApiError>) -> Kind {
    answer.as_ref().expect_err("it was refused").kind
}

#[test]
fn the_same_key_in_one_batch_is_one_run_and_with_another_body_none() {
    let asked = [
        echo(Some(("k", "body"))),
        echo(Some(("k", "body"))),
        echo(Some(("k", "another"))),
        echo(None),
    ];
    let mut round = round(&asked);
    assert_eq!(round.keys().count(), 1, "what repeats asks for nothing");
    round.decide(&Known::default());
    let claimed = round.new_keys().into_iter().map(id_of).collect();
    round.keep_claimed(&claimed);
    assert_eq!(round.runs().len(), 2);
    let answers = round.into_answers();
    assert_eq!(run_of(&answers[0]), run_of(&answers[1]));
    assert_eq!(kind_of(&answers[2]), Kind::KeyReused);
    assert_ne!(run_of(&answers[0]), run_of(&answers[3]));
}

#[test]
fn a_key_that_was_answered_before_gets_that_answer_and_no_run() {
    let asked = [echo(Some(("k", "body"))), echo(Some(("l", "another")))];
    let mut round = round(&asked);
    let given = |key: &str| Given {
        principal: "ada".into(),
        route: "POST /v1/actions".into(),
        key: key.into(),
        body_hash: "body".into(),
        answer: json!({"status": 202, "body": {"id": "earlier"}}),
    };
    round.answer_given(&[given("k"), given("l")]);
    assert!(!round.has_keys());
    round.decide(&Known::default());
    assert!(round.runs().is_empty());
    let answers = round.into_answers();
    assert_eq!(run_of(&answers[0]), "earlier");
    assert_eq!(kind_of(&answers[1]), Kind::KeyReused);
}

#[test]
fn a_key_that_was_claimed_elsewhere_in_between_loses_its_run() {
    let asked = [echo(Some(("k", "body"))), echo(None)];
    let mut round = round(&asked);
    round.decide(&Known::default());
    round.keep_claimed(&HashSet::new());
    assert_eq!(round.runs().len(), 1, "the run without a key is not concerned");
    assert!(round.lost_any());
    let key = new_key(&asked[0]).expect("it has a key");
    round.answer_given(&[Given {
        principal: key.principal,
        route: key.route,
        key: key.key,
        body_hash: key.body_hash,
        answer: json!({"status": 202, "body": {"id": "the other's"}}),
    }]);
    assert_eq!(run_of(&round.into_answers()[0]), "the other's");
}

#[test]
fn unknown_paused_and_invalid_are_refused_each_for_itself() {
    let known = Known::default();
    let schema = InputSchema::compile(&json!({"required": ["day"]})).expect("a schema");
    known.keep(nightly(false), Some(schema));

    let asked = [of_pipeline(json!({})), of_pipeline(json!({"day": 1}))];
    let answers = |found: Vec<Submittable>| {
        let mut round = round(&asked);
        assert_eq!(round.names(), ["nightly"]);
        round.found(found);
        round.decide(&known);
        round.into_answers()
    };
    let unknown = answers(Vec::new());
    assert_eq!(kind_of(&unknown[1]), Kind::Unknown);
    let paused = answers(vec![nightly(true)]);
    assert_eq!(kind_of(&paused[1]), Kind::Paused);
    let found = answers(vec![nightly(false)]);
    assert_eq!(kind_of(&found[0]), Kind::Invalid);
    assert_eq!(found[1].as_ref().expect("it was accepted").body["version"], 3);
}

#[test]
fn a_guess_has_to_be_of_all_pipelines_and_every_input_checked_for_it() {
    let known = Known::default();
    let names = ["nightly".to_owned()];
    assert_eq!(known.guess(&names), None, "it was never looked up");
    let schema = InputSchema::compile(&json!({"required": ["day"]})).expect("a schema");
    known.keep(nightly(false), Some(schema));
    assert_eq!(known.guess(&names), Some(vec![nightly(false)]));
    assert_eq!(known.guess(&["nightly".to_owned(), "weekly".to_owned()]), None);

    let checked = |input| {
        let mut asked = of_pipeline(input);
        asked.wanted.iter_mut().flatten().for_each(|submission| known.check_ahead(submission));
        asked
    };
    let fits =
        |asked: &[Asked], version| round(asked).fits(&[Submittable { version, ..nightly(false) }]);
    let (right, wrong) = (json!({"day": 1}), json!({}));
    assert!(fits(&[checked(right.clone())], 3));
    assert!(!fits(&[checked(right.clone())], 4), "it was checked for another version");
    assert!(!fits(&[checked(right.clone()), checked(wrong)], 3), "one of them may be refused");
    assert!(!fits(&[of_pipeline(right)], 3), "it was not checked yet");

    known.keep(nightly(true), None);
    assert_eq!(known.guess(&names), None, "it was paused when it was last looked up");
}

#[test]
fn a_list_is_answered_item_by_item() {
    let submissions =
        vec![action(), Submission::of_pipeline("gone".into(), json!({})).expect("it is right")];
    let asked = [asked(submissions, None, true)];
    let mut round = round(&asked);
    round.decide(&Known::default());
    assert_eq!(round.runs().len(), 1);
    let answers = round.into_answers();
    let body = &answers[0].as_ref().expect("it was accepted").body;
    assert_eq!(
        (&body["items"][0]["status"], &body["items"][1]["status"]),
        (&json!(202), &json!(404))
    );
    assert!(body["items"][1]["problem"]["type"].is_string());
}

use common::pipeline::InputSchema;
use common::store::pipelines::Submittable;

use super::*;
use crate::accept::known::Known;
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
    let mut round = Round::of(&asked);
    assert_eq!(round.keys().count(), 1, "what repeats asks for nothing");
    round.decide();
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
    let mut round = Round::of(&asked);
    let given = |key: &str| Given {
        principal: "ada".into(),
        route: "POST /v1/actions".into(),
        key: key.into(),
        body_hash: "body".into(),
        answer: json!({"status": 202, "body": {"id": "earlier"}}),
    };
    round.answer_given(&[given("k"), given("l")]);
    assert!(!round.has_keys());
    round.decide();
    assert!(round.runs().is_empty());
    let answers = round.into_answers();
    assert_eq!(run_of(&answers[0]), "earlier");
    assert_eq!(kind_of(&answers[1]), Kind::KeyReused);
}

#[test]
fn a_key_that_was_claimed_elsewhere_in_between_loses_its_run() {
    let asked = [echo(Some(("k", "body"))), echo(None)];
    let mut round = Round::of(&asked);
    round.decide();
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

fn found(paused: bool) -> Found {
    let schema = InputSchema::compile(&json!({"required": ["day"]})).expect("a schema");
    Found::new(nightly(paused), Some(schema))
}

#[test]
fn unknown_paused_and_invalid_are_refused_each_for_itself() {
    let asked = [of_pipeline(json!({})), of_pipeline(json!({"day": 1}))];
    let answers = |found: Vec<Found>| {
        let mut round = Round::of(&asked);
        assert_eq!(round.names(), ["nightly"]);
        round.found(found);
        round.decide();
        round.into_answers()
    };
    let unknown = answers(Vec::new());
    assert_eq!(kind_of(&unknown[1]), Kind::Unknown);
    let paused = answers(vec![found(true)]);
    assert_eq!(kind_of(&paused[1]), Kind::Paused);
    let found = answers(vec![found(false)]);
    assert_eq!(kind_of(&found[0]), Kind::Invalid);
    assert_eq!(found[1].as_ref().expect("it was accepted").body["version"], 3);
}

#[test]
fn a_guess_has_to_be_of_all_pipelines_and_every_input_checked_for_it() {
    let known = Known::default();
    let names = ["nightly".to_owned()];
    let versions = |names: &[String]| {
        let guess = known.guess(names)?;
        Some(guess.iter().map(|found| found.pipeline.version).collect::<Vec<_>>())
    };
    assert_eq!(versions(&names), None, "it was never looked up");
    known.keep(&names, &[found(false)]);
    assert_eq!(versions(&names), Some(vec![3]));
    assert_eq!(versions(&["nightly".to_owned(), "weekly".to_owned()]), None);

    let checked = |input| {
        let mut asked = of_pipeline(input);
        asked.wanted.iter_mut().flatten().for_each(|submission| known.check_ahead(submission));
        asked
    };
    let fits = |asked: &[Asked], version| {
        let mut round = Round::of(asked);
        round.found(vec![Found::new(Submittable { version, ..nightly(false) }, None)]);
        round.is_checked()
    };
    let (right, wrong) = (json!({"day": 1}), json!({}));
    assert!(fits(&[checked(right.clone())], 3));
    assert!(!fits(&[checked(right.clone())], 4), "it was checked for another version");
    assert!(!fits(&[checked(right.clone()), checked(wrong)], 3), "one of them may be refused");
    assert!(!fits(&[of_pipeline(right)], 3), "it was not checked yet");

    known.keep(&names, &[found(true)]);
    assert_eq!(versions(&names), None, "it was paused when it was last looked up");
    known.keep(&names, &[found(false)]);
    known.keep(&names, &[]);
    assert_eq!(versions(&names), None, "it was gone when it was last looked up");
}

/// What is looked up for a batch serves that batch, however much has to be forgotten for it.
#[test]
fn an_input_is_checked_though_its_schema_was_forgotten_meanwhile() {
    let known = Known::default();
    known.keep(&["nightly".to_owned()], &[found(false)]);
    let kept = known.guess(&["nightly".to_owned()]).expect("it is kept");
    let others: Vec<Found> = (0..1_000)
        .map(|n| Found::new(Submittable { name: format!("p{n}"), ..nightly(false) }, None))
        .collect();
    known.keep(&[], &others);
    assert!(known.guess(&["nightly".to_owned()]).is_none(), "it was forgotten");
    let asked = [of_pipeline(json!({}))];
    let mut round = Round::of(&asked);
    round.found(kept);
    round.decide();
    assert_eq!(kind_of(&round.into_answers()[0]), Kind::Invalid);
}

#[test]
fn a_list_is_answered_item_by_item() {
    let submissions =
        vec![action(), Submission::of_pipeline("gone".into(), json!({})).expect("it is right")];
    let asked = [asked(submissions, None, true)];
    let mut round = Round::of(&asked);
    round.decide();
    assert_eq!(round.runs().len(), 1);
    let answers = round.into_answers();
    let body = &answers[0].as_ref().expect("it was accepted").body;
    assert_eq!(
        (&body["items"][0]["status"], &body["items"][1]["status"]),
        (&json!(202), &json!(404))
    );
    assert!(body["items"][1]["problem"]["type"].is_string());
}

//! Statements on a database that a secret names: here, the fleet's own.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{Client, Run};
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::wait::{eventually, seen};

const PATIENCE: Duration = Duration::from_secs(20);

/// A fleet with a secret `DATABASE`, and a table `things` with the numbers 1 to 5.
async fn fleet(options: FleetOptions) -> (TestFleet, Client) {
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();
    let secret = json!({"name": "DATABASE", "value": fleet.database().url()});
    client.post("/v1/secrets", &secret).await.expect(201);
    fleet.database().execute("create table things as select generate_series(1, 5) as n").await;
    (fleet, client)
}

/// One statement, tried once.
async fn query(client: &Client, statement: &str, more: Value) -> Run {
    let mut input = json!({"database": "{{ secrets.DATABASE }}", "statement": statement});
    for (key, value) in more.as_object().expect("an object") {
        input[key] = value.clone();
    }
    let body = json!({"action": "sql_query", "input": input, "retry": {"max_attempts": 1}});
    let id = client.action_with(body).await;
    client.wait(&id).await
}

fn message(run: &Run) -> &str {
    run.error["message"].as_str().expect("a message")
}

#[tokio::test]
async fn parameters_are_data_and_rows_are_objects() {
    let (fleet, client) = fleet(FleetOptions::default()).await;
    let statement = "select $1::int8 as n, $2 as text, $3 as list, $4::jsonb ->> 'a' as field, $5::bool as yes,
        $6::text as nothing, $7::numeric as exact, array[[1, 2], [3, null]] as matrix, array['a', 'b,c'] as words,
        '2026-01-31T06:00:00+02'::timestamptz as at, '2026-01-31'::date as day, 'infinity'::timestamp as ever,
        '\\x00ff'::bytea as bytes, '{\"k\": [1]}'::json as json, '6f2c1f6e-0000-4000-8000-000000000000'::uuid as id,
        0.1::float4 as single, 'nan'::float8 as nan, '10.0.0.0/8'::cidr as net, array[]::int[] as empty";
    let sly = "'; drop table things; -- {{ run.id }} ü";
    let parameters = json!([7, "{{ input.sly }}", [1, {"b": null}], {"a": "x"}, true, null, 12.5]);
    // What a run's input holds is data in the statement as well.
    let definition = json!({"name": "p", "nodes": [{"id": "q", "type": "action", "config": {
        "action": "sql_query", "database": "{{ secrets.DATABASE }}", "statement": statement, "parameters": parameters}}]});
    let run = client.run_pipeline(definition, json!({"sly": sly})).await.expect("completed");
    let output = &run.node("q").output;
    assert_eq!(output["row_count"], 1);
    assert_eq!(
        output["rows"][0],
        json!({
            "n": 7, "text": sly, "list": [1, {"b": null}], "field": "x", "yes": true, "nothing": null, "exact": "12.5",
            "matrix": [[1, 2], [3, null]], "words": ["a", "b,c"], "at": "2026-01-31T04:00:00.000000Z",
            "day": "2026-01-31", "ever": "infinity", "bytes": "\\x00ff", "json": {"k": [1]},
            "id": "6f2c1f6e-0000-4000-8000-000000000000", "single": 0.1, "nan": "NaN", "net": "10.0.0.0/8", "empty": [],
        })
    );
    let run = query(&client, "select n from things order by n", json!({"row_limit": 2}))
        .await
        .expect("completed");
    assert_eq!(
        run.output,
        json!({"rows": [{"n": 1}, {"n": 2}], "row_count": 2, "truncated": true})
    );
    let run =
        query(&client, "select n from things", json!({"row_limit": 5})).await.expect("completed");
    assert_eq!((&run.output["row_count"], run.output.get("truncated")), (&json!(5), None));
    let many =
        query(&client, "select n from generate_series(1, 100000) as n", json!({"row_limit": 1000}))
            .await;
    assert_eq!(many.expect("completed").output["rows"][999], json!({"n": 1000}));
    fleet.finish().await;
}

#[tokio::test]
async fn what_is_wrong_is_permanent_and_says_what() {
    let (fleet, client) = fleet(FleetOptions::default()).await;
    for (statement, parameters, says) in [
        ("selec 1", json!([]), "syntax error"),
        ("select 1; drop table things", json!([]), "multiple commands"),
        ("-- nothing", json!([]), "no"),
        ("select n from nowhere", json!([]), "does not exist"),
        ("select $1::int", json!([]), "has 1 parameters, and `parameters` has 0"),
        ("select $1::int", json!(["x"]), "invalid input syntax"),
        ("select 1 as a, 2 as a", json!([]), "two columns are named `a`"),
        ("select point(1, 2) as p", json!([]), "`p` has the type point"),
        ("select 1 / 0", json!([]), "division by zero"),
        ("select repeat('x', 1000000) as x from generate_series(1, 40)", json!([]), "over 16 MiB"),
    ] {
        let run = query(&client, statement, json!({"parameters": parameters})).await;
        if statement == "-- nothing" {
            assert_eq!(run.expect("completed").output, json!({"rows": [], "row_count": 0}));
            continue;
        }
        let run = run.expect("failed");
        assert_eq!(run.error["kind"], "permanent", "{statement}");
        assert!(message(&run).contains(says), "{statement}: {}", message(&run));
    }
    for code in ["40001", "40P01", "57P01", "53300"] {
        let raise =
            format!("do $$ begin raise exception 'passes' using errcode = '{code}'; end $$");
        let run = query(&client, &raise, json!({})).await.expect("failed");
        assert_eq!(run.error["kind"], "retryable", "{code}: {}", message(&run));
    }
    let run =
        query(&client, "select pg_sleep(60)", json!({"timeout": "300ms"})).await.expect("failed");
    assert_eq!(run.error["kind"], "retryable");
    assert_eq!(fleet.database().count("select count(*) from things").await, 5);
    fleet.finish().await;
}

/// Ways to write in a transaction that may not.
const WRITES: [&str; 9] = [
    "insert into things values (6)",
    "with gone as (delete from things returning n) select n from gone",
    "do $$ begin insert into things values (6); end $$",
    "do $$ begin set transaction read write; insert into things values (6); end $$",
    "do $$ begin perform set_config('transaction_read_only', 'off', true); insert into things values (6); end $$",
    "do $$ begin commit; insert into things values (6); end $$",
    "do $$ begin rollback; set session characteristics as transaction read write; insert into things values (6); end $$",
    "create table more (n int)",
    "truncate things",
];

#[tokio::test]
async fn nothing_is_written_unless_the_caller_and_the_operator_say_so() {
    let (mut fleet, client) = fleet(FleetOptions::default()).await;
    for write in WRITES {
        let run = query(&client, write, json!({})).await.expect("failed");
        assert_eq!(run.error["kind"], "permanent", "{write}: {}", message(&run));
    }
    // By itself each of these is nothing; what follows is another transaction.
    for harmless in [
        "commit",
        "set transaction read write",
        "set session characteristics as transaction read write",
    ] {
        query(&client, harmless, json!({})).await;
    }
    let run = query(&client, WRITES[0], json!({"read_only": false})).await.expect("failed");
    assert!(message(&run).contains("GATHERING_SQL_WRITES=true"), "{}", message(&run));
    assert_eq!(fleet.database().count("select sum(n) from things").await, 15);

    fleet.stop(Role::Worker, 0).await;
    fleet.add(Role::Worker, &[("GATHERING_SQL_WRITES", "true")]);
    fleet.ready().await;
    let returning = "insert into things values ($1), ($2) returning n";
    let write = json!({"read_only": false, "parameters": [6, 7]});
    let run = query(&client, returning, write).await.expect("completed");
    assert_eq!(run.output, json!({"rows": [{"n": 6}, {"n": 7}], "row_count": 2}));
    let run = query(&client, "delete from things where n > 5", json!({"read_only": false})).await;
    assert_eq!(run.expect("completed").output["row_count"], 2);
    query(&client, "delete from things", json!({})).await.expect("failed");
    assert_eq!(fleet.database().count("select count(*) from things").await, 5);
    fleet.finish().await;
}

/// Waits until so many statements of the tool run in the server.
async fn running(fleet: &TestFleet, wanted: i64) {
    let query = "select count(*) from pg_stat_activity
                 where datname = current_database() and state = 'active' and query like 'select pg_sleep(120)%'";
    eventually(PATIENCE, &format!("{wanted} statements to run"), async || {
        let count = fleet.database().count(query).await;
        seen(count == wanted, count)
    })
    .await;
}

#[tokio::test]
async fn a_cancel_and_a_dead_worker_end_the_statement_in_the_server() {
    let (mut fleet, client) = fleet(FleetOptions::default()).await;
    let input = json!({"database": "{{ secrets.DATABASE }}", "statement": "select pg_sleep(120)", "timeout": "3m"});
    let body = json!({"action": "sql_query", "input": input, "retry": {"max_attempts": 1}});
    let cancelled = client.action_with(body.clone()).await;
    running(&fleet, 1).await;
    client.cancel(&cancelled).await;
    running(&fleet, 0).await;
    client.wait(&cancelled).await.expect("cancelled");

    let killed = client.action_with(body).await;
    running(&fleet, 1).await;
    fleet.kill(Role::Worker, 0);
    // The server notices, and nobody is there to ask again.
    running(&fleet, 0).await;
    client.cancel(&killed).await;
    fleet.add(Role::Worker, &[]);
    fleet.ready().await;
    client.wait(&killed).await.expect("cancelled");
    fleet.finish().await;
}

#[tokio::test]
async fn a_database_that_is_not_opened_is_refused() {
    let options =
        FleetOptions::default().with(Role::Worker, "GATHERING_ALLOWED_HOSTS", "localhost");
    let (fleet, client) = fleet(options).await;
    let run = query(&client, "select 1 as one", json!({})).await.expect("failed");
    assert_eq!(run.error["kind"], "permanent");
    assert!(message(&run).contains("GATHERING_ALLOWED_HOSTS"), "{}", message(&run));
    fleet.finish().await;
}

//! What operators do and see: health, metrics, logs, orderly stops, wrong settings.

use std::time::Duration;

use serde_json::{Value, json};
use tests::database::Database;
use tests::fleet::{FleetOptions, Role, SECRET, TestFleet};
use tests::http_target::HttpTarget;
use tests::process::{binary, command};
use tests::servers::Servers;
use tests::wait::eventually;

use crate::definitions::*;

#[tokio::test]
async fn every_process_tells_its_health_and_metrics() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let id = fleet.client().action("echo", json!({})).await;
    fleet.client().wait(&id).await.expect("completed");
    for role in [Role::Api, Role::Worker, Role::Scheduler] {
        let get = async |path| {
            let answer =
                tests::client::http().get(format!("{}{path}", fleet.url(role, 0))).send().await;
            answer.expect("an answer").status().as_u16()
        };
        assert_eq!((get("/health/live").await, get("/health/ready").await), (200, 200), "{role:?}");
        let metrics = fleet.metrics(role, 0).await;
        assert!(metrics.lines().any(|line| line.starts_with("gathering_")), "{role:?}: {metrics}");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn logs_are_json_and_name_the_run() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let request = client
        .request(reqwest::Method::POST, "/v1/actions")
        .header("x-request-id", "traced-request");
    let answer =
        client.send(request.json(&json!({"action": "echo", "input": {}}))).await.expect(202);
    let id = answer["id"].as_str().expect("an id").to_owned();
    client.wait(&id).await.expect("completed");

    let logs = fleet.logs();
    for line in logs.lines().filter(|line| !line.is_empty()) {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "not JSON: {line}");
    }
    assert!(logs.lines().any(|line| line.contains("traced-request")), "the request id is logged");
    assert!(logs.lines().any(|line| line.contains(&id)), "the run id is logged");
    fleet.finish().await;
}

#[tokio::test]
async fn a_worker_that_stops_finishes_what_it_runs() {
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    client
        .create_pipeline(&pipeline(
            "p",
            [call("a", &target.url("/held")), echo("b", json!({}))],
            [edge("a", "b")],
        ))
        .await;
    let id = client.submit("p", json!({})).await;
    target.arrived("/held", 1).await;

    fleet.process(Role::Worker, 0).terminate();
    let ready = format!("{}/health/ready", fleet.url(Role::Worker, 0));
    eventually(Duration::from_secs(10), "the worker to say that it drains", async || {
        match tests::client::http().get(&ready).send().await {
            Ok(answer) if answer.status() == 503 => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    gate.open();
    fleet.stopped(Role::Worker, 0).await;
    let run = client.run(&id).await;
    assert_eq!(run.node("a").state, "completed", "what it ran is recorded: {run:#?}");
    assert_eq!(run.node("b").attempt, 0, "no continuation is started: {run:#?}");

    fleet.add(Role::Worker, &[]);
    let run = client.wait(&id).await.expect("completed");
    assert_eq!(
        (run.node("a").attempt, target.received("/held").len()),
        (1, 1),
        "and not executed again"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn a_worker_that_stops_hands_back_what_does_not_end_in_time() {
    let target = HttpTarget::start().await;
    let options = FleetOptions { concurrency: 4, ..FleetOptions::default() }.with(
        Role::Worker,
        "GATHERING_DRAIN",
        "1s",
    );
    let mut fleet = TestFleet::start(options).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    client.create_pipeline(&pipeline("p", [call("a", &target.url("/held"))], [])).await;
    let once = with(call("a", &target.url("/once")), "on_worker_lost", json!("fail"));
    client.create_pipeline(&pipeline("once", [once], [])).await;
    let _gate = target.gate("/once");
    let once = client.submit("once", json!({})).await;
    target.arrived("/once", 1).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(client.submit("p", json!({})).await);
    }
    target.arrived("/held", 3).await;

    fleet.stop(Role::Worker, 0).await;
    fleet.add(Role::Worker, &[("GATHERING_CONCURRENCY", "16")]);
    gate.open();
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    let spent = "select count(*) from node_runs where spent > 0 or losses > 0";
    assert_eq!(fleet.database().count(spent).await, 0, "what is handed back is unspent");
    assert_eq!(client.wait(&once).await.expect("failed").error["kind"], "worker_lost");
    assert_eq!(target.received("/once").len(), 1);
    fleet.finish().await;
}

#[tokio::test]
async fn a_rolling_restart_loses_nothing_and_runs_nothing_twice() {
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions {
        workers: 2,
        apis: 2,
        schedulers: 2,
        ..FleetOptions::default()
    })
    .await;
    let client = fleet.client_of(1);
    let calls = |id: &str| call(id, &target.url("/effect"));
    let definition =
        pipeline("p", [calls("a"), calls("b"), calls("c")], [edge("a", "b"), edge("b", "c")]);
    client.create_pipeline(&definition).await;
    target.answers(
        "/effect",
        [tests::http_target::Reply::status(200).after(Duration::from_millis(20))],
    );

    let mut ids = Vec::new();
    for role in [Role::Worker, Role::Scheduler, Role::Worker] {
        for _ in 0..20 {
            ids.push(client.submit("p", json!({})).await);
        }
        let index = if role == Role::Worker && ids.len() > 20 { 1 } else { 0 };
        fleet.stop(role, index).await;
        fleet.add(role, &[]);
    }
    fleet.stop(Role::Api, 0).await;
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    let effects = target.effects("/effect");
    assert_eq!(effects.len(), 180);
    assert!(effects.values().all(|count| *count == 1), "{effects:#?}");
    fleet.finish().await;
}

#[tokio::test]
async fn an_api_that_stops_answers_those_that_wait() {
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let id = client.action("call_api", json!({"method": "GET", "url": target.url("/held")})).await;
    target.arrived("/held", 1).await;
    let mut stream = client.events(&id, None).await;
    stream.next().await.expect("what has happened already");
    let waiting = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { client.get(&format!("/v1/runs/{id}?wait=60s")).await.status }
    });
    // The request has arrived once another, sent after it, has been answered many times over.
    for _ in 0..20 {
        client.run(&id).await;
    }
    fleet.stop(Role::Api, 0).await;
    assert!([200, 503].contains(&waiting.await.expect("an answer")));
    gate.open();
    fleet.finish().await;
}

#[tokio::test]
async fn servers_that_are_not_there_yet_are_waited_for() {
    use tests::proxy::{Mode, Proxy};
    use tests::servers::Servers;
    let servers = Servers::shared().await;
    let (postgres, rabbit) =
        (Proxy::before(&servers.database_url).await, Proxy::before(&servers.amqp_url).await);
    let mut options = FleetOptions::default();
    for role in [Role::Api, Role::Worker, Role::Scheduler] {
        options = options.with_broker_via(role, &rabbit, &servers);
    }
    let mut fleet = TestFleet::prepare(options).await;
    postgres.set(Mode::Refuse);
    rabbit.set(Mode::Refuse);
    for role in [Role::Api, Role::Worker, Role::Scheduler] {
        fleet.database_via(role, &postgres);
        fleet.add(role, &[]);
    }
    eventually(Duration::from_secs(20), "the logs to say what is waited for", async || {
        let logs = fleet.logs().to_lowercase();
        if logs.contains("postgres") || logs.contains("database") { Ok(()) } else { Err(logs) }
    })
    .await;
    postgres.heal();
    rabbit.heal();
    fleet.ready().await;
    let id = fleet.client().action("echo", json!({})).await;
    fleet.client().wait(&id).await.expect("completed");
    fleet.finish().await;
}

#[tokio::test]
async fn wrong_settings_stop_the_start_and_are_named() {
    for (program, name, value) in [
        ("gathering-api", "GATHERING_JWT_SECRET", "short"),
        ("gathering-api", "GATHERING_HTTP_ADDR", "somewhere"),
        ("gathering-api", "DATABASE_URL", "mysql://localhost"),
        ("gathering-api", "GATHERING_JWT_OTHER_SECRETS", "short"),
        ("gathering-api", "GATHERING_REGISTRATION", "perhaps"),
        ("gathering-api", "GATHERING_ADMIN_EMAIL", "admin@example.org"),
        ("gathering-api", "GATHERING_ADMIN_PASSWORD", "correct horse battery"),
        ("gathering-api", "GATHERING_RATE_LIMIT_AUTH", "5"),
        ("gathering-api", "GATHERING_RATE_LIMIT_WRITE", "0/s"),
        ("gathering-api", "GATHERING_RATE_LIMIT_READ", "many"),
        ("gathering-api", "GATHERING_REDIS_URL", "http://localhost"),
        ("gathering-api", "GATHERING_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("gathering-api", "GATHERING_CORS_ORIGINS", "*"),
        ("gathering-api", "GATHERING_SECRETS_KEY", "short"),
        ("gathering-worker", "GATHERING_SECRETS_KEY", "short"),
        ("gathering-scheduler", "GATHERING_AUDIT_RETENTION", "long"),
        ("gathering-worker", "GATHERING_CONCURRENCY", "many"),
        ("gathering-worker", "GATHERING_CONCURRENCY", "0"),
        ("gathering-worker", "GATHERING_LANES", "default=none"),
        ("gathering-worker", "GATHERING_DRAIN", "soon"),
        ("gathering-worker", "AMQP_URL", "http://localhost"),
        ("gathering-scheduler", "GATHERING_RETENTION", "long"),
    ] {
        let mut wrong = command(&binary(program));
        if program == "gathering-api" {
            wrong.arg("serve");
        }
        // Nobody listens there: a process that does not notice would wait.
        wrong
            .env("DATABASE_URL", "postgres://127.0.0.1:9/x")
            .env("AMQP_URL", "amqp://127.0.0.1:9/%2f")
            .env("GATHERING_JWT_SECRET", SECRET)
            .env("GATHERING_HTTP_ADDR", "127.0.0.1:0")
            .env("GATHERING_OPS_ADDR", "off")
            .env(name, value);
        let mut wrong = tokio::process::Command::from(wrong);
        let output =
            tokio::time::timeout(Duration::from_secs(10), wrong.kill_on_drop(true).output()).await;
        let output = output
            .unwrap_or_else(|_| panic!("{program} starts with {name}={value}"))
            .expect("it runs");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(name),
            "{program} with {name}={value} said:\n{said}"
        );
    }
}

#[tokio::test]
async fn a_token_is_printed_for_an_operator() {
    let fleet =
        TestFleet::start(FleetOptions { workers: 0, schedulers: 0, ..FleetOptions::default() })
            .await;
    let mut print = command(&binary("gathering-api"));
    print
        .args(["token", "--sub", "operator", "--role", "admin", "--ttl", "1h"])
        .env("GATHERING_JWT_SECRET", SECRET);
    let output = tokio::process::Command::from(print).output().await.expect("it runs");
    let token = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    fleet.client().with_token(Some(token)).get("/v1/runs").await.expect(200);
}

#[tokio::test]
async fn migrations_can_be_applied_again() {
    let fleet = TestFleet::prepare(FleetOptions::default()).await;
    for _ in 0..2 {
        let mut migrate = command(&binary("gathering-api"));
        migrate.arg("migrate").env("DATABASE_URL", fleet.database().url());
        let output = tokio::process::Command::from(migrate).output().await.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// An update that changes what an index is made of writes all indexes of its table, and vacuum has to walk them.
#[tokio::test]
async fn no_index_of_what_grows_is_made_of_what_changes() {
    let database = Database::create(&Servers::shared().await.database_url).await;
    let rows = sqlx::query_scalar(
        "select distinct c.relname || '.' || a.attname
         from pg_index as i join pg_class as c on c.oid = i.indrelid join pg_attribute as a on a.attrelid = c.oid
         where c.relname in ('runs', 'node_runs') and (a.attnum = any(i.indkey) or exists (
             select from pg_depend as d
             where d.objid = i.indexrelid and d.refobjid = c.oid and d.refobjsubid = a.attnum))
         order by 1",
    );
    let columns: Vec<String> =
        rows.fetch_all(database.pool()).await.expect("catalogues can be read");
    assert_eq!(
        columns,
        ["node_runs.node", "node_runs.run_id", "runs.id", "runs.pipeline", "runs.tags"]
    );
}

//! What happened is on record.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{Role, TestFleet};
use tests::wait::{eventually, seen};

use super::{ADMIN, PASSWORD, account, admin, apis, nobody, signed_in, text};

/// The only event that a filter finds, once it is written.
async fn event(admin: &Client, filter: &str) -> Value {
    eventually(Duration::from_secs(5), filter, async || {
        let found = admin.list(&format!("/v1/audit-events?{filter}")).await;
        seen(found.len() == 1, found)
    })
    .await
    .remove(0)
}

#[tokio::test]
async fn every_security_event_is_on_record_with_who_from_where_and_when() {
    let options = apis(1).with(Role::Api, "GATHERING_REGISTRATION", "open").with(
        Role::Api,
        "GATHERING_TRUSTED_PROXIES",
        "127.0.0.1",
    );
    let fleet = TestFleet::start(options).await;
    let admin = admin(&fleet).await;
    let nobody = nobody(&fleet, 0);
    let bob_id = account(&admin, "bob@example.org", "operator").await;
    let bob = signed_in(&fleet, "bob@example.org").await;

    // One of each, all with a request id and an address by which they are found.
    let send = async |client: &Client, method: Method, path: &str, body: Value, id: &str| {
        let request = client.request(method, path).json(&body);
        let request =
            request.header("x-request-id", id).header("x-forwarded-for", "6.6.6.6, 203.0.113.7");
        client.send(request).await
    };
    let post = Method::POST;
    let wrong = json!({"email": "BOB@example.org", "password": "not the password"});
    send(&nobody, post.clone(), "/v1/auth/token", wrong, "failed").await.expect_status(401);
    let right = json!({"email": "bob@example.org", "password": PASSWORD});
    let pair = send(&nobody, post.clone(), "/v1/auth/token", right, "login").await.expect(200);
    let refresh = json!({"refresh_token": text(&pair, "refresh_token")});
    send(&nobody, post.clone(), "/v1/auth/refresh", refresh.clone(), "refresh").await.expect(200);
    send(&nobody, post.clone(), "/v1/auth/refresh", refresh, "reuse").await.expect_status(401);
    let eve = json!({"email": "eve@example.org", "password": PASSWORD});
    let eve = send(&nobody, post.clone(), "/v1/auth/register", eve, "register").await.expect(201);
    let eve_id = text(&eve, "id").to_owned();
    let role = json!({"role": "operator"});
    send(&admin, Method::PATCH, &format!("/v1/users/{eve_id}"), role, "role").await.expect(200);
    let key =
        send(&bob, post.clone(), "/v1/api-keys", json!({"name": "k"}), "key").await.expect(201);
    let path = format!("/v1/api-keys/{}", text(&key, "id"));
    send(&bob, Method::DELETE, &path, json!({}), "revoked").await.expect_status(204);
    let program = nobody.with(text(&key, "key"));
    send(&program, Method::GET, "/v1/runs", json!({}), "refused").await.expect_status(401);
    send(&bob, Method::GET, "/v1/users", json!({}), "denied").await.expect_status(403);
    let definition = crate::definitions::chain("p", 1);
    send(&bob, post.clone(), "/v1/pipelines", definition, "pipeline").await.expect(201);
    let run = bob.submit_with("p", json!({"delay": "1h"})).await;
    send(&bob, post.clone(), &format!("/v1/runs/{run}/cancel"), json!({}), "cancel")
        .await
        .expect(202);
    let secret = json!({"name": "TOKEN", "value": "sesame-open-1"});
    send(&bob, post.clone(), "/v1/secrets", secret, "secret").await.expect(201);
    send(&bob, Method::DELETE, "/v1/secrets/TOKEN", json!({}), "forgotten")
        .await
        .expect_status(204);
    send(&bob, post, "/v1/auth/logout", json!({}), "logout").await.expect_status(204);

    let me = admin.get("/v1/auth/me").await.expect(200);
    let (admin_id, prefix) = (text(&me, "sub"), format!("key:{}", text(&key, "prefix")));
    let bob = Some(bob_id.as_str());
    for (request, kind, actor, subject) in [
        ("failed", "login_failed", bob, bob_id.as_str()),
        ("login", "login", bob, &bob_id),
        ("refresh", "refresh", bob, &bob_id),
        ("reuse", "refresh_reused", bob, &bob_id),
        ("register", "registered", Some(eve_id.as_str()), &eve_id),
        ("role", "role_changed", Some(admin_id), &eve_id),
        ("key", "key_created", bob, &prefix),
        ("revoked", "key_revoked", bob, &prefix),
        ("refused", "key_refused", None, &prefix),
        ("denied", "access_denied", bob, "GET /v1/users"),
        ("pipeline", "pipeline_changed", bob, "p"),
        ("cancel", "run_cancelled", bob, &run),
        ("secret", "secret_set", bob, "TOKEN"),
        ("forgotten", "secret_deleted", bob, "TOKEN"),
        ("logout", "logout", bob, &bob_id),
    ] {
        let event = event(&admin, &format!("request_id={request}")).await;
        assert_eq!(text(&event, "kind"), kind, "{event}");
        assert_eq!(event["actor"].as_str(), actor, "{event}");
        assert_eq!(text(&event, "subject"), subject, "{event}");
        assert_eq!(text(&event, "address"), "203.0.113.7", "{event}");
        assert!(text(&event, "at").ends_with('Z'), "{event}");
    }
    event(
        &admin,
        &format!("kind=login,refresh&actor={bob_id}&address=203.0.113.7&request_id=login"),
    )
    .await;
    event(&admin, &format!("kind=role_changed&subject={eve_id}&after=2020-01-01T00:00:00Z")).await;
    assert!(admin.list("/v1/audit-events?before=2020-01-01T00:00:00Z").await.is_empty());
    assert!(admin.list("/v1/audit-events?limit=1").await.len() >= 15);
    admin.get("/v1/audit-events?kind=parties").await.problem(422);

    // No password, token, key or secret is in any of it.
    let all: Value = admin.list("/v1/audit-events").await.into();
    let all = all.to_string();
    let secret = text(&key, "key").rsplit('_').next().expect("a secret");
    for hidden in [
        PASSWORD,
        "not the password",
        "sesame",
        secret,
        text(&pair, "refresh_token"),
        text(&pair, "access_token"),
    ] {
        assert!(!all.contains(hidden), "{hidden} is in {all}");
        assert!(!fleet.logs().contains(hidden), "{hidden} is in the log");
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_written_blocks_nobody_and_is_counted_and_logged() {
    let fleet = TestFleet::start(apis(1)).await;
    fleet.database().execute("alter table audit_events rename to audit_events_gone").await;
    nobody(&fleet, 0).sign_in(ADMIN, PASSWORD).await;
    eventually(Duration::from_secs(10), "the loss to be counted", async || {
        let metrics = fleet.metrics(Role::Api, 0).await;
        let line =
            metrics.lines().find(|line| line.starts_with("gathering_audit_events_lost_total"));
        seen(line.is_some_and(|line| line.ends_with(" 1")), line.map(str::to_owned))
    })
    .await;
    assert!(fleet.logs().contains("a security event could not be written"));
}

#[tokio::test]
async fn events_survive_an_orderly_end() {
    let mut fleet = TestFleet::start(apis(1)).await;
    for _ in 0..5 {
        nobody(&fleet, 0).sign_in(ADMIN, PASSWORD).await;
    }
    fleet.stop(Role::Api, 0).await;
    assert_eq!(
        fleet.database().count("select count(*) from audit_events where kind = 'login'").await,
        5
    );
}

/// Whoever kills the api after an answer finds the event that it tells of.
#[tokio::test]
async fn an_answer_comes_after_its_event_is_written() {
    let fleet = TestFleet::start(apis(1)).await;
    let mut holder = fleet.database().pool().begin().await.expect("a transaction");
    sqlx::query("lock table audit_events in exclusive mode")
        .execute(&mut *holder)
        .await
        .expect("it");
    let nobody = nobody(&fleet, 0);
    let signing_in = tokio::spawn(async move { nobody.sign_in(ADMIN, PASSWORD).await });
    let waiting =
        "select count(*) from pg_locks where relation = 'audit_events'::regclass and not granted";
    eventually(Duration::from_secs(10), "the event to be under way", async || {
        let waiting = fleet.database().count(waiting).await;
        seen(waiting == 1, waiting)
    })
    .await;
    assert!(!signing_in.is_finished(), "it was answered before");
    holder.commit().await.expect("it lets go");
    signing_in.await.expect("an answer");
    let written = "select count(*) from audit_events where kind = 'login'";
    assert_eq!(fleet.database().count(written).await, 1);

    // Nor does it wait for ever.
    let mut holder = fleet.database().pool().begin().await.expect("a transaction");
    sqlx::query("lock table audit_events in exclusive mode")
        .execute(&mut *holder)
        .await
        .expect("it");
    super::nobody(&fleet, 0).sign_in(ADMIN, PASSWORD).await;
    assert_eq!(fleet.database().count(waiting).await, 1);
    holder.rollback().await.expect("it lets go");
}

#[tokio::test]
async fn an_address_is_believed_only_from_a_trusted_proxy() {
    let fleet = TestFleet::start(apis(1)).await;
    let nobody = nobody(&fleet, 0);
    let body = json!({"email": "x@example.org", "password": "something long"});
    let request = nobody.request(Method::POST, "/v1/auth/token").json(&body);
    let request = request.header("x-forwarded-for", "203.0.113.7").header("x-request-id", "here");
    nobody.send(request).await.problem(401);
    let event = event(&admin(&fleet).await, "request_id=here").await;
    assert_eq!(text(&event, "address"), "127.0.0.1");
    assert_eq!(text(&event["detail"], "email"), "x@example.org");
}

//! What is revoked is revoked on every replica, within a second, and for good.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::client::Client;
use tests::fleet::{Role, TestFleet};
use tests::proxy::{Mode, Proxy};
use tests::wait::{eventually, seen};

use super::{ADMIN, PASSWORD, SECOND, account, admin, apis, nobody, signed_in, text};

/// How long a client that never rests goes on getting another answer than `status`.
async fn until(client: &Client, path: &str, status: u16) -> Duration {
    let began = Instant::now();
    loop {
        let answer = client.get(path).await;
        if answer.status == status {
            return began.elapsed();
        }
        assert!(began.elapsed() < 10 * SECOND, "still {}: {}", answer.status, answer.text);
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_by_every_replica_within_a_second_and_after_a_restart() {
    let mut fleet = TestFleet::start(apis(2)).await;
    let pair = nobody(&fleet, 0).sign_in(ADMIN, PASSWORD).await;
    let (here, there) = (
        nobody(&fleet, 0).with(text(&pair, "access_token")),
        nobody(&fleet, 1).with(text(&pair, "access_token")),
    );
    there.get("/v1/runs").await.expect(200);
    here.post("/v1/auth/logout", &json!({})).await.expect(204);
    let took = until(&there, "/v1/runs", 401).await;
    assert!(took <= SECOND, "{took:?}");
    here.get("/v1/runs").await.problem(401);
    fleet.kill(Role::Api, 0);
    fleet.stop(Role::Api, 1).await;
    fleet.add(Role::Api, &[]);
    fleet.ready().await;
    nobody(&fleet, 2).with(text(&pair, "access_token")).get("/v1/runs").await.problem(401);
    let again = json!({"refresh_token": text(&pair, "refresh_token")});
    nobody(&fleet, 2).post("/v1/auth/refresh", &again).await.problem(401);
}

#[tokio::test]
async fn disabling_and_another_role_count_everywhere_within_a_second() {
    let fleet = TestFleet::start(apis(2)).await;
    let admin = admin(&fleet).await;
    let id = account(&admin, "bob@example.org", "admin").await;
    let path = format!("/v1/users/{id}");
    let bob = signed_in(&fleet, "bob@example.org").await;
    let key = bob.post("/v1/api-keys", &json!({"name": "k"})).await.expect(201);
    let bobs = [bob.token().expect("a token"), text(&key, "key")]
        .map(|token| nobody(&fleet, 1).with(token));
    for bob in &bobs {
        bob.get("/v1/users").await.expect(200);
    }
    admin.patch(&path, &json!({"role": "viewer"})).await.expect(200);
    let (one, two) =
        tokio::join!(until(&bobs[0], "/v1/users", 403), until(&bobs[1], "/v1/users", 403));
    assert!(one.max(two) <= SECOND, "{one:?} {two:?}");
    admin.patch(&path, &json!({"disabled": true})).await.expect(200);
    let (one, two) =
        tokio::join!(until(&bobs[0], "/v1/runs", 401), until(&bobs[1], "/v1/runs", 401));
    assert!(one.max(two) <= SECOND, "{one:?} {two:?}");
    // Enabled again, the key is good; the sign-in is not.
    admin.patch(&path, &json!({"disabled": false})).await.expect(200);
    let took = until(&bobs[1], "/v1/runs", 200).await;
    assert!(took <= SECOND, "{took:?}");
    bobs[0].get("/v1/runs").await.problem(401);
}

#[tokio::test]
async fn a_revoked_key_is_refused_by_every_replica_within_a_second() {
    let fleet = TestFleet::start(apis(2)).await;
    let admin = admin(&fleet).await;
    let made = admin.post("/v1/api-keys", &json!({"name": "k"})).await.expect(201);
    let there = nobody(&fleet, 1).with(text(&made, "key"));
    there.get("/v1/runs").await.expect(200);
    admin.delete(&format!("/v1/api-keys/{}", text(&made, "id"))).await.expect(204);
    let took = until(&there, "/v1/runs", 401).await;
    assert!(took <= SECOND, "{took:?}");
}

#[tokio::test]
async fn without_the_database_nobody_is_let_in_on_an_old_answer() {
    let mut fleet = TestFleet::prepare(apis(0)).await;
    let proxy = Proxy::before(fleet.database().url()).await;
    fleet.database_via(Role::Api, &proxy);
    fleet.add(Role::Api, &[]);
    fleet.ready().await;
    let client = admin(&fleet).await;
    // This asks the database for nothing but the caller.
    let path = "/v1/pipelines/validate";
    let body = json!({"name": "p", "nodes": [{"id": "a", "type": "trigger"}], "edges": []});
    client.post(path, &body).await.expect(200);
    for mode in [Mode::Refuse, Mode::Hold] {
        proxy.set(mode);
        let cut = Instant::now();
        loop {
            let asked = cut.elapsed();
            let answer = client.post(path, &body).await;
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some());
                break;
            }
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert!(asked < SECOND, "let in {asked:?} after the database went");
        }
        // Signing in fails closed as well, and health goes on.
        if mode == Mode::Refuse {
            let sign_in = json!({"email": ADMIN, "password": PASSWORD});
            nobody(&fleet, 0).post("/v1/auth/token", &sign_in).await.problem(503);
        }
        nobody(&fleet, 0).get("/health/live").await.expect(200);
        proxy.heal();
        eventually(Duration::from_secs(20), "the client to be let in again", async || {
            let answer = client.post(path, &body).await;
            seen(answer.status == 200, answer.status)
        })
        .await;
    }
}

#[tokio::test]
async fn what_has_expired_is_pruned() {
    let mut fleet = TestFleet::start(apis(1)).await;
    let pair = nobody(&fleet, 0).sign_in(ADMIN, PASSWORD).await;
    let client = nobody(&fleet, 0).with(text(&pair, "access_token"));
    client.post("/v1/auth/logout", &json!({})).await.expect(204);
    nobody(&fleet, 0).sign_in(ADMIN, PASSWORD).await;
    let database = fleet.database();
    let old = "clock_timestamp() - interval '3 days'";
    database.execute(&format!("update refresh_tokens set expires_at = {old} where family_id in (select id from token_families where revoked_at is not null)")).await;
    database
        .execute(&format!(
            "update token_families set created_at = {old} where revoked_at is not null"
        ))
        .await;
    database.execute(&format!("insert into revoked_tokens select gen_random_uuid(), {old} from generate_series(1, 700)")).await;
    eventually(SECOND * 5, "the events to be written", async || {
        let count = database.count("select count(*) from audit_events").await;
        seen(count >= 3, count)
    })
    .await;
    database.execute("update audit_events set at = clock_timestamp() - interval '400 days' where kind = 'logout'").await;
    fleet.add(Role::Scheduler, &[]);
    fleet.ready().await;
    let database = fleet.database();
    for (query, left) in [
        ("select count(*) from revoked_tokens", 1),
        ("select count(*) from refresh_tokens", 1),
        ("select count(*) from token_families", 1),
        ("select count(*) from audit_events", 2),
    ] {
        eventually(Duration::from_secs(20), query, async || {
            let count = database.count(query).await;
            seen(count == left, count)
        })
        .await;
    }
}

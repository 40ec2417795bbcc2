//! What a client may say of a schedule.

use std::time::Duration;

use serde_json::{Value, json};

use super::at;
use crate::clock::text;
use crate::schedule::{Misfire, Overlap, Spec, check, preview};
use crate::tool::tests::catalogue;

fn with(change: Value) -> Value {
    let mut body = json!({
        "name": "nightly", "kind": "cron", "cron": "0 3 * * *",
        "start": {"pipeline": "backup", "input": {"day": "{{ fire_at }}"}},
    });
    for (key, value) in change.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn pointers(body: &Value) -> Vec<String> {
    check(body, &catalogue()).unwrap_err().into_iter().map(|error| error.pointer).collect()
}

#[test]
fn a_schedule_has_defaults_and_is_read_back() {
    let spec = check(&with(json!({})), &catalogue()).unwrap();
    assert_eq!((spec.misfire, spec.overlap), (Misfire::FireOnce, Overlap::Skip));
    assert_eq!((spec.misfire_grace, spec.max_catch_up), (Duration::from_secs(60), 100));
    let stored = serde_json::to_value(&spec).unwrap();
    assert_eq!(serde_json::from_value::<Spec>(stored.clone()).unwrap(), spec);
    assert_eq!(check(&stored, &catalogue()).unwrap(), spec, "what is shown can be sent again");
    let listens = with(json!({"kind": "event", "cron": null, "event_type": "order.*"}));
    let listens = check(&listens, &catalogue());
    assert_eq!(
        listens.unwrap().overlap,
        Overlap::Allow,
        "no event is lost because another came before"
    );
}

#[test]
fn all_that_is_wrong_is_found_with_its_place() {
    for (change, pointer) in [
        (json!({"name": null}), "/name"),
        (json!({"name": "a b"}), "/name"),
        (json!({"kind": null}), "/kind"),
        (json!({"kind": "weekly"}), "/kind"),
        (json!({"cron": null}), "/cron"),
        (json!({"cron": 5}), "/cron"),
        (json!({"cron": "0 0 30 2 *"}), "/cron"),
        (json!({"timezone": "Mars"}), "/timezone"),
        (json!({"interval": "1s"}), "/interval"),
        (json!({"kind": "interval", "cron": null, "interval": "999ms"}), "/interval"),
        (json!({"kind": "interval", "cron": null}), "/interval"),
        (json!({"kind": "once", "cron": null, "at": "tomorrow"}), "/at"),
        (json!({"kind": "once", "cron": null}), "/at"),
        (json!({"kind": "event", "cron": null}), "/event_type"),
        (json!({"kind": "event", "cron": null, "event_type": "a b"}), "/event_type"),
        (
            json!({"kind": "event", "cron": null, "event_type": "a", "condition": "data.x >"}),
            "/condition",
        ),
        (
            json!({"kind": "event", "cron": null, "event_type": "a", "condition": "input.x"}),
            "/condition",
        ),
        (json!({"condition": "true"}), "/condition"),
        (json!({"start": null}), "/start"),
        (json!({"start": {}}), "/start"),
        (json!({"start": {"pipeline": "a", "action": "echo"}}), "/start"),
        (json!({"start": {"pipeline": "a", "lane": "gpu"}}), "/start/lane"),
        (json!({"start": {"pipeline": "a", "input": "{{ fire_a }}"}}), "/start/input"),
        (json!({"start": {"pipeline": "a", "input": {"x": "{{ event.data }}"}}}), "/start/input/x"),
        (json!({"start": {"action": "dance"}}), "/start/action"),
        (json!({"start": {"action": "call_api", "input": {"url": 7}}}), "/start/input/url"),
        (json!({"start": {"action": "echo", "input": {"x": "{{ run.id }}"}}}), "/start/input/x"),
        (json!({"start": {"action": "echo"}, "retry": {"max_attempts": 0}}), "/retry/max_attempts"),
        (json!({"misfire": "cry"}), "/misfire"),
        (json!({"misfire_grace": "25h"}), "/misfire_grace"),
        (json!({"max_catch_up": 0}), "/max_catch_up"),
        (json!({"overlap": "dance"}), "/overlap"),
        (json!({"start_at": "2030-01-02T00:00:00Z", "end_at": "2030-01-01T00:00:00Z"}), "/end_at"),
        (json!({"max_fires": 0}), "/max_fires"),
        (json!({"jitter": "2d"}), "/jitter"),
        (json!({"tags": [""]}), "/tags/0"),
        (json!({"max_consecutive_failures": 0}), "/max_consecutive_failures"),
        (json!({"inptu": 1}), "/inptu"),
    ] {
        assert_eq!(pointers(&with(change.clone())), [pointer], "{change}");
    }
    assert_eq!(pointers(&json!([])), [""]);
    let several = pointers(&json!({"kind": "cron", "cron": "x", "overlap": 1}));
    assert_eq!(several, ["/name", "/start", "/overlap"], "all at once");
}

#[test]
fn a_preview_tells_what_comes() {
    let fires = |body: Value, after: &str| -> Vec<String> {
        preview(&body).unwrap().fires(at(after)).iter().map(text).collect()
    };
    let cron =
        json!({"kind": "cron", "cron": "0 9 * * mon", "timezone": "Europe/Berlin", "count": 2});
    assert_eq!(
        fires(cron, "2026-03-20T00:00:00Z"),
        ["2026-03-23T08:00:00.000000Z", "2026-03-30T07:00:00.000000Z"]
    );
    let interval = json!({"kind": "interval", "interval": "90s", "count": 2});
    assert_eq!(
        fires(interval, "2026-01-01T00:00:00Z"),
        ["2026-01-01T00:01:30.000000Z", "2026-01-01T00:03:00.000000Z"]
    );
    let once = json!({"kind": "once", "at": "2026-01-01T01:00:00+01:00"});
    assert_eq!(fires(once.clone(), "2025-01-01T00:00:00Z"), ["2026-01-01T00:00:00.000000Z"]);
    assert!(fires(once, "2026-01-01T00:00:00Z").is_empty());
    let ten = json!({"kind": "cron", "cron": "@daily"});
    assert_eq!(fires(ten, "2026-01-01T00:00:00Z").len(), 10, "unless it says how many");
    for (body, pointer) in [
        (json!({}), "/kind"),
        (json!({"kind": "event"}), "/kind"),
        (json!({"kind": "cron"}), "/cron"),
        (json!({"kind": "cron", "cron": "* * * * *", "count": 1001}), "/count"),
        (json!({"kind": "cron", "cron": "* * * * *", "at": "2026-01-01T00:00:00Z"}), "/at"),
        (json!({"kind": "cron", "cron": "* * 31 2 *"}), "/cron"),
        (json!({"kind": "interval", "interval": "0s"}), "/interval"),
    ] {
        assert_eq!(preview(&body).unwrap_err()[0].pointer, pointer, "{body}");
    }
}

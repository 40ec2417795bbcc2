//! `nightly-backup`, on a database with something in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use tests::client::Run;
use tests::database::Database;
use tests::fleet::{Role, TestFleet};
use tokio::process::Command;

use super::{example, fleet_with, options, store};

/// A database to be backed up, and the folder for its backups.
struct Source {
    database: Database,
    server: String,
    name: String,
    folder: PathBuf,
}

impl Source {
    async fn make(fleet: &TestFleet) -> Self {
        let database = Database::create(fleet.database().url()).await;
        for statement in [
            "create table people (id int primary key, name text not null, born date, photo bytea)",
            "insert into people select n, 'person ' || n, date '1990-01-01' + n, sha256(n::text::bytea)
             from generate_series(1, 2000) n",
            r#"create schema "the shop""#,
            r#"create table "the shop"."Orders" (id bigserial primary key, person int references people,
               at timestamptz default now(), lines jsonb, price numeric(10, 2))"#,
            r#"insert into "the shop"."Orders" (person, lines, price)
               select 1 + n % 2000, jsonb_build_object('ä', n, 'tab', E'\t\n'), n / 7.0
               from generate_series(1, 5000) n"#,
            "create table nothing (id int)",
            "create view adults as select * from people where born < date '1992-01-01'",
        ] {
            database.execute(statement).await;
        }
        // A row is to read the same in both databases all the same.
        let (server, name) = database.url().rsplit_once('/').expect("a URL with a database");
        let (server, name) = (server.to_owned(), name.to_owned());
        database.execute(&format!("alter database {name} set timezone to 'Asia/Tokyo'")).await;
        database.execute(&format!("alter database {name} set bytea_output to 'escape'")).await;
        let folder = fleet.folder().join("backups");
        std::fs::create_dir(&folder).expect("a folder can be made");
        Self { database, server, name, folder }
    }

    fn input(&self, keep: usize) -> Value {
        json!({
            "server": self.server, "database": self.name, "folder": self.folder, "keep": keep,
        })
    }

    /// The backups that are there, by name.
    fn backups(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).expect("the folder is there");
        let names = entries.map(|entry| entry.expect("it can be read").file_name());
        let mut names: Vec<_> = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.starts_with(&self.name))
            .collect();
        names.sort();
        names
    }

    /// Nothing is left of the work, on disk or in the server.
    async fn check_clean(&self, run: &Run) {
        let unproved = std::fs::read_dir(self.folder.join(".unproved")).expect("it was made");
        assert_eq!(unproved.count(), 0, "a workplace was left");
        let scratch = format!("restored_{}", run.id.replace('-', "_"));
        let databases = rows(self.database.pool(), "select datname::text from pg_database").await;
        assert!(!databases.contains(&scratch), "{scratch} was left");
    }
}

/// Whether `pg_dump` is installed, and not older than the server.
async fn can_dump(fleet: &TestFleet) -> bool {
    let Ok(output) = Command::new("pg_dump").arg("--version").output().await else {
        eprintln!("pg_dump is not installed: nothing was tested");
        return false;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let major = said.split(|c: char| !c.is_ascii_digit()).find_map(|part| part.parse::<i64>().ok());
    let server = fleet
        .database()
        .count("select current_setting('server_version_num')::bigint / 10000")
        .await;
    let can = major >= Some(server);
    if !can {
        eprintln!("{} is older than the server ({server}): nothing was tested", said.trim());
    }
    can
}

async fn back_up(fleet: &TestFleet, source: &Source, keep: usize) -> Run {
    let id = fleet.client().submit("nightly-backup", source.input(keep)).await;
    fleet.client().wait(&id).await
}

/// Runs a program, which must succeed, and returns what it says.
async fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output().await;
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
    said.into_owned()
}

async fn rows(pool: &PgPool, query: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(pool).await.expect("rows can be read")
}

#[tokio::test]
async fn a_backup_holds_what_the_database_holds() {
    let fleet = fleet_with("nightly-backup").await;
    if !can_dump(&fleet).await {
        return;
    }
    let source = Source::make(&fleet).await;
    let completed = back_up(&fleet, &source, 3).await.expect("completed");

    let names = source.backups();
    let [checksum, dump] = names.as_slice() else { panic!("{names:?}") };
    assert_eq!(completed.output["file"], json!(source.folder.join(dump)));
    assert_eq!(
        (&completed.output["rotated"], &completed.output["removed"]),
        (&json!(true), &json!([]))
    );
    run("sha256sum", &["--check", checksum], &source.folder).await;
    let sha256 = run("sha256sum", &[dump], &source.folder).await;
    assert_eq!(completed.output["sha256"].as_str(), sha256.split(' ').next());

    // Restored here, by other means than the pipeline's.
    let restored = Database::create(fleet.database().url()).await;
    restored.execute("drop schema public cascade").await;
    restored.execute("create schema public").await;
    run("gzip", &["--decompress", "--keep", dump], &source.folder).await;
    let plain = dump.trim_end_matches(".gz");
    let arguments = ["-q", "-v", "ON_ERROR_STOP=1", "-f", plain, restored.url()];
    run("psql", &arguments, &source.folder).await;
    for query in [
        "select to_jsonb(p)::text from people p order by id",
        r#"select to_jsonb(o)::text from "the shop"."Orders" o order by id"#,
        "select to_jsonb(a)::text from adults a order by id",
        "select conname::text || pg_get_constraintdef(oid) from pg_constraint order by conname",
    ] {
        let (before, after) =
            (rows(source.database.pool(), query).await, rows(restored.pool(), query).await);
        assert!(before == after, "{query}: {} rows and {} rows", before.len(), after.len());
        assert!(before.len() > 10, "{query}");
    }
    source.check_clean(&completed).await;
    fleet.finish().await;
}

#[tokio::test]
async fn the_newest_backups_are_kept() {
    let fleet = fleet_with("nightly-backup").await;
    if !can_dump(&fleet).await {
        return;
    }
    let source = Source::make(&fleet).await;
    let old = |day: u32| format!("{}.2025010{day}T000000Z", source.name);
    for day in 1..=4 {
        for suffix in ["sql.gz", "sha256"] {
            let path = source.folder.join(format!("{}.{suffix}", old(day)));
            std::fs::write(path, "").expect("a file can be written");
        }
    }
    let another = source.folder.join("another.20240101T000000Z.sql.gz");
    std::fs::write(&another, "").expect("a file can be written");

    let run = back_up(&fleet, &source, 3).await.expect("completed");
    let removed = json!([format!("{}.sql.gz", old(2)), format!("{}.sql.gz", old(1))]);
    assert_eq!(run.output["removed"], removed);
    let names = source.backups();
    assert_eq!(names.len(), 6, "three, and their checksums: {names:?}");
    assert!(names[0].starts_with(&old(3)) && another.exists(), "{names:?}");

    // A folder cannot be removed like a file. The backup is good all the same.
    std::fs::create_dir(source.folder.join(format!("{}.sql.gz", old(1)))).expect("a folder");
    let run = back_up(&fleet, &source, 3).await.expect("completed");
    assert_eq!((&run.output["rotated"], &run.output["removed"]), (&json!(false), &json!(null)));
    assert_eq!(
        (&*run.node("rotate").state, &*run.node("not_rotated").state),
        ("failed", "completed")
    );
    assert!(Path::new(run.output["file"].as_str().expect("a path")).exists());
    fleet.finish().await;
}

/// A `pg_dump` that loses a row.
const LOSSY: &str = "#!/bin/sh
PATH=${PATH#*:}
pg_dump \"$@\" && sed -i '/person 77\t/d' dump.sql
";

#[tokio::test]
async fn a_dump_that_lacks_a_row_is_no_backup() {
    let text = example("nightly-backup");
    let mut fleet = TestFleet::prepare(options(&text)).await;
    let programs = fleet.folder().join("programs");
    std::fs::create_dir(&programs).expect("a folder can be made");
    let program = programs.join("pg_dump");
    std::fs::write(&program, LOSSY).expect("a file can be written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", programs.display());
    fleet.add(Role::Api, &[]);
    fleet.add(Role::Scheduler, &[]);
    fleet.add(Role::Worker, &[("PATH", &path)]);
    fleet.ready().await;
    store(&fleet.client(), &text).await;
    if !can_dump(&fleet).await {
        return;
    }
    let source = Source::make(&fleet).await;
    let old = source.folder.join(format!("{}.20250101T000000Z.sql.gz", source.name));
    std::fs::write(&old, "").expect("a file can be written");

    // The lost row is one that no order refers to: else the restoration itself would fail.
    source.database.execute(r#"delete from "the shop"."Orders" where person = 77"#).await;
    let run = back_up(&fleet, &source, 1).await.expect("failed");
    assert_eq!(run.error["node"], "compare", "{:#}", run.error);
    let message = run.error["message"].as_str().expect("a message");
    assert!(message.contains("< public.people|2000|") && message.contains("> public.people|1999|"));
    assert!(old.exists(), "what was good stays");
    assert_eq!(source.backups().len(), 1, "what is not good is not kept");
    assert_eq!(run.node("rotate").state, "skipped");
    source.check_clean(&run).await;

    fleet.finish().await;
}

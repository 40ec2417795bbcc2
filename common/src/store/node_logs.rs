//! What nodes printed.

use sqlx::PgConnection;
use sqlx::PgPool;
use uuid::Uuid;

use crate::clock;
use crate::node_log::{Page, Stream};

/// What one attempt printed lately.
#[derive(Debug, Clone)]
pub struct Printed {
    /// Its run.
    pub run: Uuid,
    /// Its node.
    pub node: String,
    /// Its number.
    pub attempt: i32,
    /// What is to be stored.
    pub page: Page,
}

/// Stores pages of attempts that `owner` still executes, and says of each whether it was: what was fenced off writes
/// nothing any more. The same again changes nothing.
///
/// An outcome that is recorded after this returned is durable only together with it, so the commit waits for no disk.
pub async fn write(
    conn: &mut PgConnection,
    printed: &[Printed],
    owner: Uuid,
) -> Result<Vec<bool>, sqlx::Error> {
    let owned = owned(conn, printed, owner).await?;
    let mut forget = Columns::default();
    let mut lines = Columns::default();
    for (printed, _) in printed.iter().zip(&owned).filter(|(_, is_owned)| **is_owned) {
        if let Some((from, to)) = printed.page.forgotten {
            forget.add(printed, from);
            forget.to.push(to);
        }
        for line in &printed.page.lines {
            lines.add(printed, line.seq);
            lines.streams.push(line.stream.name().to_owned());
            lines.ages.push(line.at.elapsed().as_secs_f64());
            lines.texts.push(line.text.clone());
        }
    }
    if !forget.seqs.is_empty() {
        sqlx::query!(
            "delete from node_logs l
             using unnest($1::uuid[], $2::text[], $3::int[], $4::bigint[], $5::bigint[])
                 as f (run_id, node, attempt, low, high)
             where l.run_id = f.run_id and l.node = f.node and l.attempt = f.attempt and l.seq > f.low and l.seq < f.high",
            &forget.runs,
            &forget.nodes,
            &forget.attempts,
            &forget.seqs,
            &forget.to,
        )
        .execute(&mut *conn)
        .await?;
    }
    if !lines.seqs.is_empty() {
        sqlx::query!(
            "insert into node_logs (run_id, node, attempt, seq, stream, at, text)
             select run_id, node, attempt, seq, stream::log_stream, (select clock_timestamp()) - age * interval '1 s', text
             from unnest($1::uuid[], $2::text[], $3::int[], $4::bigint[], $5::text[], $6::float8[], $7::text[])
                 as l (run_id, node, attempt, seq, stream, age, text)
             where (select set_config('synchronous_commit', 'off', true)) = 'off'
             on conflict (run_id, node, attempt, seq)
                 do update set stream = excluded.stream, at = excluded.at, text = excluded.text",
            &lines.runs,
            &lines.nodes,
            &lines.attempts,
            &lines.seqs,
            &lines.streams,
            &lines.ages,
            &lines.texts,
        )
        .execute(conn)
        .await?;
    }
    Ok(owned)
}

/// Columns of rows that are written together.
#[derive(Default)]
struct Columns {
    runs: Vec<Uuid>,
    nodes: Vec<String>,
    attempts: Vec<i32>,
    seqs: Vec<i64>,
    to: Vec<i64>,
    streams: Vec<String>,
    ages: Vec<f64>,
    texts: Vec<String>,
}

impl Columns {
    fn add(&mut self, printed: &Printed, seq: i64) {
        self.runs.push(printed.run);
        self.nodes.push(printed.node.clone());
        self.attempts.push(printed.attempt);
        self.seqs.push(seq);
    }
}

async fn owned(
    conn: &mut PgConnection,
    printed: &[Printed],
    owner: Uuid,
) -> Result<Vec<bool>, sqlx::Error> {
    let mut asked = Columns::default();
    printed.iter().for_each(|printed| asked.add(printed, 0));
    let rows = sqlx::query_scalar!(
        r#"select exists(
               select from node_runs n
               where n.run_id = a.run_id and n.node = a.node and n.attempt = a.attempt
                 and n.state = 'running' and n.owner = $4) as "is_owned!"
           from unnest($1::uuid[], $2::text[], $3::int[]) with ordinality as a (run_id, node, attempt, place)
           order by place"#,
        &asked.runs,
        &asked.nodes,
        &asked.attempts,
        owner,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

/// A line, as it is stored.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The node that printed it.
    pub node: String,
    /// The attempt that did.
    pub attempt: i32,
    /// Its number among all lines of the attempt; a gap is lines that were left out.
    pub seq: i64,
    /// Where it comes from.
    pub stream: Stream,
    /// When it was printed.
    pub at: clock::Instant,
    /// What it says.
    pub text: String,
}

/// The lines of some attempts of a node, in the order in which they were printed.
pub async fn read(
    pool: &PgPool,
    run: Uuid,
    node: &str,
    attempts: &[i32],
) -> Result<Vec<LogLine>, sqlx::Error> {
    sqlx::query_as!(
        LogLine,
        r#"select node, attempt, seq, stream as "stream: Stream", at, text from node_logs
           where run_id = $1 and node = $2 and attempt = any($3) order by attempt, seq"#,
        run,
        node,
        attempts,
    )
    .fetch_all(pool)
    .await
}

/// How far somebody has read what a node printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The node.
    pub node: String,
    /// The attempt of the last line that was read; 0 before the first.
    pub attempt: i32,
    /// Its number.
    pub seq: i64,
}

/// The next `limit` lines of these nodes, one node after the other.
pub async fn after(
    pool: &PgPool,
    run: Uuid,
    read: &[Read],
    limit: i64,
) -> Result<Vec<LogLine>, sqlx::Error> {
    let nodes: Vec<String> = read.iter().map(|read| read.node.clone()).collect();
    let attempts: Vec<i32> = read.iter().map(|read| read.attempt).collect();
    let seqs: Vec<i64> = read.iter().map(|read| read.seq).collect();
    sqlx::query_as!(
        LogLine,
        r#"select l.node as "node!", l.attempt as "attempt!", l.seq as "seq!", l.stream as "stream!: Stream",
               l.at as "at!", l.text as "text!"
           from unnest($2::text[], $3::int[], $4::bigint[]) with ordinality as k (node, attempt, seq, place)
           cross join lateral (
               select * from node_logs l
               where l.run_id = $1 and l.node = k.node and (l.attempt, l.seq) > (k.attempt, k.seq)
               order by l.attempt, l.seq limit $5) l
           where (select exists (select from node_logs where run_id = $1))
           order by k.place, l.attempt, l.seq limit $5"#,
        run,
        &nodes,
        &attempts,
        &seqs,
        limit,
    )
    .fetch_all(pool)
    .await
}

//! Schedules and schemas, kept compiled: a revision of one, and a version of a pipeline, never change.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::clock::Instant;
use crate::expression::Expression;
use crate::pipeline::InputSchema;
use crate::schedule::plan::Planner;
use crate::schedule::rule::Rule;
use crate::schedule::{Spec, Starter, State, compile, said};
use crate::store::pipelines::{self, Submittable};

/// How many schedules are kept compiled, and how many schemas. Past that some schedules are forgotten, or all schemas,
/// and compiled anew as they are needed.
const KEPT: usize = 4_000;

/// A schedule, compiled.
#[derive(Debug)]
pub struct Known {
    /// What the client says.
    pub spec: Spec,
    /// When it fires.
    pub rule: Rule,
    /// On which condition it listens.
    pub condition: Option<Expression>,
    /// What it starts.
    pub starter: Starter,
    /// Who made it.
    pub created_by: String,
    revision: i32,
}

impl Known {
    /// Its rule with all that a plan depends on.
    pub fn planner(&self, schedule: Uuid, anchor: Instant) -> Planner<'_> {
        Planner {
            schedule,
            rule: &self.rule,
            bounds: self.spec.bounds(anchor),
            lateness: self.spec.lateness(),
        }
    }
}

/// A schedule as it stands.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its state.
    pub state: State,
    /// What it is; or why it cannot be compiled any more.
    pub known: Result<Arc<Known>, String>,
}

/// What a process has compiled.
#[derive(Debug, Default)]
pub struct Catalogue {
    known: HashMap<Uuid, Arc<Known>>,
    schemas: HashMap<(Uuid, i32), Option<Arc<InputSchema>>>,
}

impl Catalogue {
    /// The schedules as they stand, whose clocks the caller has locked.
    pub async fn load(
        &mut self,
        conn: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, Loaded>, sqlx::Error> {
        while self.known.len() + ids.len() > KEPT {
            // Any: of those that all fire in turn, the one not used for longest would be the next to be needed.
            let Some(some) = self.known.keys().next().copied() else { break };
            self.known.remove(&some);
        }
        let known: Vec<Option<i32>> =
            ids.iter().map(|id| self.known.get(id).map(|known| known.revision)).collect();
        let rows = sqlx::query!(
            r#"select s.id, s.state as "state: State", s.revision, s.created_by,
                   case when k.revision is distinct from s.revision then s.spec end as "spec: Json<Spec>"
               from unnest($1::uuid[], $2::int[]) as k (id, revision)
               join schedules s on s.id = k.id"#,
            ids,
            &known as &[Option<i32>]
        )
        .fetch_all(conn)
        .await?;
        let mut loaded = HashMap::with_capacity(rows.len());
        for row in rows {
            if let Some(Json(spec)) = row.spec {
                match compile(&spec, None) {
                    Ok((rule, condition, starter)) => {
                        let (revision, created_by) = (row.revision, row.created_by);
                        let known = Known { spec, rule, condition, starter, created_by, revision };
                        self.known.insert(row.id, Arc::new(known));
                    }
                    Err(errors) => {
                        let why = format!("it cannot be read here any more: {}", said(&errors));
                        loaded.insert(row.id, Loaded { state: row.state, known: Err(why) });
                        continue;
                    }
                }
            }
            if let Some(known) = self.known.get(&row.id) {
                loaded.insert(row.id, Loaded { state: row.state, known: Ok(known.clone()) });
            }
        }
        Ok(loaded)
    }

    /// The pipelines of these names as they stand, with what their inputs are checked against.
    pub(super) async fn pipelines(
        &mut self,
        conn: &mut PgConnection,
        names: &[String],
    ) -> Result<HashMap<String, (Submittable, Option<Arc<InputSchema>>)>, sqlx::Error> {
        let mut found = HashMap::new();
        if names.is_empty() {
            return Ok(found);
        }
        for pipeline in pipelines::submittable(conn, names).await? {
            let schema = self.schema(conn, &pipeline).await?;
            found.insert(pipeline.name.clone(), (pipeline, schema));
        }
        Ok(found)
    }

    async fn schema(
        &mut self,
        conn: &mut PgConnection,
        pipeline: &Submittable,
    ) -> Result<Option<Arc<InputSchema>>, sqlx::Error> {
        if !pipeline.has_schema {
            return Ok(None);
        }
        let version = (pipeline.id, pipeline.version);
        if let Some(schema) = self.schemas.get(&version) {
            return Ok(schema.clone());
        }
        let stored = pipelines::input_schema(conn, pipeline.id, pipeline.version).await?;
        // It was compiled when the version was made; one that no longer compiles checks nothing.
        let compiled = stored.and_then(|schema| {
            let compiled = InputSchema::compile(&schema);
            compiled
                .inspect_err(|faults| tracing::error!(?faults, "a stored schema is broken"))
                .ok()
        });
        let compiled = compiled.map(Arc::new);
        if self.schemas.len() >= KEPT {
            self.schemas.clear();
        }
        self.schemas.insert(version, compiled.clone());
        Ok(compiled)
    }
}

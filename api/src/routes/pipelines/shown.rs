//! A pipeline as clients see it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::problem::Pointed;
use common::store::pipelines::{Pipeline, Version};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::view::Stamp;

/// A pipeline; in a list, without its definition.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct PipelineView {
    id: Uuid,
    name: String,
    /// The version shown.
    version: i32,
    /// The newest version.
    latest_version: i32,
    /// Whether submitting is refused.
    paused: bool,
    owner: String,
    created_at: Stamp,
    updated_at: Stamp,
    /// As it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<Value>,
    /// What its author may want to know; when it is created or replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<crate::routes::openapi::Warning>>)]
    warnings: Option<Vec<Pointed>>,
}

impl PipelineView {
    pub(super) fn new(pipeline: Pipeline) -> Self {
        Self {
            id: pipeline.id,
            name: pipeline.name,
            version: pipeline.version,
            latest_version: pipeline.version,
            paused: pipeline.paused,
            owner: pipeline.owner,
            created_at: Stamp(pipeline.created_at),
            updated_at: Stamp(pipeline.updated_at),
            definition: None,
            warnings: None,
        }
    }

    /// With the definition that was just stored.
    pub(super) fn stored(mut self, definition: Value, warnings: Vec<Pointed>) -> Self {
        self.definition = Some(definition);
        self.warnings = Some(warnings);
        self
    }

    /// In one of its versions.
    pub(super) fn at(mut self, version: Version) -> Self {
        self.version = version.version;
        self.definition = Some(version.definition);
        self
    }

    /// With the version's number as its tag.
    pub(super) fn answer(self, status: StatusCode) -> Response {
        let tag = HeaderValue::try_from(format!("\"{}\"", self.latest_version));
        let mut response = (status, Json(self)).into_response();
        if let Ok(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

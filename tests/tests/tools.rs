//! The tools that actions ask for, as their users meet them.

mod call_api;
mod catalogue;
mod commands;
mod leak;
mod logs;
mod notifications;
mod sql_query;
mod workspace;

//! The tools that actions ask for, as their users meet them.

mod call_api;
mod catalogue;
mod leak;
mod sql_query;

//! The formats of tool calls: a file for each, or for a few that are close.

pub(super) mod action;
pub(super) mod apertus;
pub(super) mod bare;
pub(super) mod deepseek;
pub(super) mod function_tags;
pub(super) mod gemma;
pub(super) mod glm;
pub(super) mod invoke;
pub(super) mod json;
pub(super) mod kimi;
pub(super) mod llama;
pub(super) mod marked;
pub(super) mod mistral;
pub(super) mod pythonic;
pub(super) mod tags;

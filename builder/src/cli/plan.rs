//! The plan of a build, resolved from its arguments: every default applied.

use std::{ffi::OsString, path::PathBuf};

use super::args::{BuildArgs, ChangeArgs, LimitArgs, SourceArgs};
use crate::pack;

/// What to build.
#[expect(dead_code, reason = "read by commands/image.rs once sources are there")]
#[derive(Debug)]
pub(super) struct BuildPlan {
    /// The image as asked for.
    pub(super) source: OsString,
    pub(super) source_options: SourceArgs,
    pub(super) changes: ChangeArgs,
    pub(super) limits: LimitArgs,
    pub(super) output: PathBuf,
    pub(super) pack: pack::Options,
}

impl BuildPlan {
    pub(super) fn resolve(args: BuildArgs) -> Self {
        Self {
            source: args.source,
            source_options: args.source_options,
            changes: args.changes,
            limits: args.limits,
            output: args.output,
            pack: pack::Options {
                level: args.pack.compression,
                jobs: args.pack.jobs.unwrap_or_else(pack::default_jobs),
            },
        }
    }
}

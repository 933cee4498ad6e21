//! The plan of a build, resolved from its arguments: every default applied.

use std::{ffi::OsString, path::PathBuf};

use super::args::{BuildArgs, ChangeArgs, LimitArgs, SourceArgs};
use crate::{flatten::Limits, pack};

/// What to build.
#[derive(Debug)]
pub(super) struct BuildPlan {
    /// The image as asked for.
    pub(super) source: OsString,
    pub(super) source_options: SourceArgs,
    pub(super) changes: ChangeArgs,
    pub(super) limits: Limits,
    pub(super) output: PathBuf,
    /// Tell of every edited file.
    pub(super) report: bool,
    pub(super) pack: pack::Options,
}

impl BuildPlan {
    pub(super) fn resolve(args: BuildArgs) -> Self {
        Self {
            source: args.source,
            source_options: args.source_options,
            changes: args.changes,
            limits: limits(args.limits),
            output: args.output,
            report: args.report,
            pack: pack::Options {
                level: args.pack.compression,
                jobs: args.pack.jobs.unwrap_or_else(pack::default_jobs),
            },
        }
    }
}

/// Limits, with the usual ones where none is given.
pub(super) fn limits(args: LimitArgs) -> Limits {
    let usual = Limits::default();
    Limits {
        entries: args.limit_entries.unwrap_or(usual.entries),
        size: args.limit_size.unwrap_or(usual.size),
        path: args.limit_path.unwrap_or(usual.path),
        depth: args.limit_depth.unwrap_or(usual.depth),
        ratio: args.limit_ratio.unwrap_or(usual.ratio),
        metadata: args.limit_metadata.unwrap_or(usual.metadata),
    }
}

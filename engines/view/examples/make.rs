//! Makes a view of a tree, for measuring: `make TREE CHANGES`.

use std::{env, path::PathBuf, process::ExitCode};

use coracle_view::{Asked, View};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (Some(tree), Some(changes)) = (args.next(), args.next()) else { return ExitCode::from(2) };
    match View::open(&Asked { tree: &tree, truths: None, changes: &changes }) {
        Ok(view) => {
            println!("{}: {:?}", view.root().display(), view.made());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

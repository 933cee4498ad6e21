//! `coracle help`: of a command, or what udocker's commands are called here.

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;

use crate::cli::{
    args::{Cli, HelpArgs},
    print,
};

/// udocker's commands and ours, with what differs.
const UDOCKER: &str = "\
udocker's commands here. Most are written alike; options take their value after a space or after =, and -it, -- and
empty arguments mean what they mean to Docker.

  udocker                     coracle                     what differs
  install                     install                     there is nothing to install, and it says so
  --repo=DIR, -D, --insecure  the same                    --config=FILE is refused: see `coracle showconf`
  --registry= --httpproxy=    the same                    --registry is for names that have none; --index for searches
  search [-a] EXPR            search TERM                 --list-tags takes a repository; -a changes nothing
  pull IMAGE                  pull IMAGE                  resumes, checks every digest; NAME@DIGEST works everywhere
  load -i FILE|- [NAME]       load -i FILE|- [NAME]       also OCI layouts and several images in one file
  save -o FILE|- IMAGE...     save -o FILE|- IMAGE...     --format=oci-archive; an existing file is replaced
  images [-l] [-p]            images [-l] [-p]
  rmi IMAGE                   rmi IMAGE                   frees layers that no other image needs
  tag SRC DST                 tag SRC DST                 as Docker: an existing DST is replaced, unless protected
  verify IMAGE                verify [IMAGE]              without IMAGE: the whole store, containers too
  manifest inspect IMAGE      manifest inspect IMAGE
  login, logout               login, logout               login asks the registry; logout [-a] [REGISTRY]
  create [--name=N] IMAGE     create [--name=N] IMAGE     no tar of the host is used; any source of `build` is taken
  run [OPTIONS] IMAGE|NAME    run [OPTIONS] IMAGE|NAME    as Docker's, with :ro volumes, -d, --hostname
  ps [-m] [-s] [-p]           ps [-m] [-s] [-p]           shows what runs; -r only that
  rm [-f] CONTAINER           rm [-f] CONTAINER           -f kills what runs in it
  name, rename, rmname        name, rename, rmname
  clone CONTAINER             clone CONTAINER
  inspect [-p] CONTAINER      inspect [-p] CONTAINER      -f '{{.Config.Env}}' for parts
  protect, unprotect          protect, unprotect
  export -o FILE CONTAINER    export -o FILE CONTAINER    keeps the owners that the image gave
  export --clone ...          export --clone ...          the archive form is described in coracle-export(1)
  import FILE IMAGE           import FILE IMAGE           -c CMD... as Docker's
  import --tocontainer|--clone  the same                  also reads udocker's clones
  setup --execmode=P1|...     setup --execmode=P1|...     the tree never changes with the mode; without one: automatic
  setup --nvidia              setup --nvidia              binds the driver at each run, copies nothing
  setup --fixperm, --purge    the same
  mkrepo DIR                  mkrepo DIR
  showconf                    showconf
  version                     version
  (none)                      exec stop kill logs wait cp diff prune build
  ~/.udocker                  ~/.coracle, $CORACLE_DIR    `coracle import-udocker` copies images and containers

Modes: P1 P2 are ptrace, R1 R2 R3 namespaces, F1 F2 F3 F4 preload, S1 apptainer; auto takes the first that this node allows.
";

/// Prints help.
pub(super) fn run(args: &HelpArgs) -> anyhow::Result<()> {
    if args.words == ["udocker"] {
        return print::bytes(UDOCKER.as_bytes());
    }
    let mut command = Cli::command();
    command.build();
    let mut at = &mut command;
    for word in &args.words {
        if at.find_subcommand(word).is_none() {
            bail!("there is no command {word}: see `coracle help`");
        }
        at = at.find_subcommand_mut(word).context("found just now")?;
    }
    print::bytes(at.render_long_help().to_string().as_bytes())
}

//! The commands, one file each.

mod accounting;
mod attach;
mod build;
mod capture;
mod clone;
mod completions;
mod container;
mod cp;
mod create;
mod diff;
mod each;
mod edits;
mod exec;
mod export;
mod foreign;
mod help;
mod history;
mod image;
mod images;
mod import;
mod inspect;
mod keygen;
mod launching;
mod load;
mod login;
mod logout;
mod logs;
mod man;
mod monitor;
mod names;
mod own;
mod protect;
mod prune;
mod ps;
mod pull;
mod repo;
mod rm;
mod run;
mod save;
mod sbom;
mod search;
mod setup;
mod sign;
mod signed;
mod start;
mod stop;
mod top;
mod udocker;
mod verify;
mod version;
mod volume;

use super::{
    args::{Cli, Command, ManifestCommand},
    plan::BuildPlan,
};

/// Carries out a command; gives the exit status.
pub(super) fn run(cli: Cli) -> anyhow::Result<u8> {
    let quiet = cli.quiet;
    if let Some(status) = foreign::again(&cli.command, quiet)? {
        return Ok(status);
    }
    match cli.command {
        Command::ImportUdocker(args) => return udocker::run(&args, quiet),
        Command::Rmi(args) => return images::remove(&args, quiet),
        Command::Volume(command) => return volume::run(&command, quiet),
        Command::Run(args) => return run::run(*args, quiet),
        Command::Start(args) => return start::run(&args, quiet),
        Command::Restart(args) => return start::restart(&args, quiet),
        Command::Capture(args) => return capture::run(&args, quiet),
        Command::Exec(args) => return exec::run(args, quiet),
        Command::Attach(args) => return attach::run(&args, quiet),
        Command::Stop(args) => return stop::stop(&args, quiet),
        Command::Kill(args) => return stop::kill(&args, quiet),
        Command::Wait(args) => return stop::wait(&args, quiet),
        Command::Rm(args) => return rm::run(&args, quiet),
        Command::Protect(args) => return protect::run(&args, true, quiet),
        Command::Unprotect(args) => return protect::run(&args, false, quiet),
        Command::Build(args) => build::run(BuildPlan::resolve(*args), quiet),
        Command::Pull(args) => pull::run(args, quiet),
        Command::Create(args) => create::run(*args, quiet),
        Command::Search(args) => search::run(&args, quiet),
        Command::Manifest(ManifestCommand::Inspect(args)) | Command::ManifestInspect(args) => {
            search::manifest(&args, quiet)
        }
        Command::Diff(args) => diff::run(&args, quiet),
        Command::Prune(args) => prune::run(&args, quiet),
        Command::Mkrepo(args) => repo::make(&args),
        Command::Showconf => repo::show(quiet),
        Command::Images(args) => images::list(&args, quiet),
        Command::Tag(args) => images::tag(&args, quiet),
        Command::Save(args) => save::run(&args, quiet),
        Command::Load(args) => load::run(&args, quiet),
        Command::Import(args) => import::run(*args, quiet),
        Command::Export(args) => export::run(&args, quiet),
        Command::Ps(args) => ps::run(&args, quiet),
        Command::Clone(args) => clone::run(&args, quiet),
        Command::Rename(args) => names::rename(&args, quiet),
        Command::Name(args) => names::add(&args, quiet),
        Command::Rmname(args) => names::remove(&args, quiet),
        Command::Setup(args) => setup::run(&args, quiet),
        Command::Inspect(args) => inspect::run(&args, quiet),
        Command::Verify(args) => verify::run(&args, quiet),
        Command::Accounting(args) => accounting::run(&args, quiet),
        Command::Sbom(args) => sbom::run(&args, quiet),
        Command::Keygen(args) => keygen::run(&args, quiet),
        Command::Sign(args) => sign::run(&args, quiet),
        Command::Login(args) => login::run(args, quiet),
        Command::Logout(args) => logout::run(args, quiet),
        Command::Help(args) => help::run(&args),
        Command::Cp(args) => cp::run(&args, quiet),
        Command::Logs(args) => logs::run(&args, quiet),
        Command::Top(args) => top::run(&args, quiet),
        Command::History(args) => history::history(&args, quiet),
        Command::Port(args) => history::port(&args, quiet),
        Command::Monitor(args) => monitor::run(&args),
        Command::Sweep => foreign::swept(quiet),
        Command::Own(args) => own::run(&args, quiet),
        Command::Edits(args) => edits::run(&args, quiet),
        Command::Install(_) => repo::install(quiet),
        Command::Version => version::run(),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
    .map(|()| 0)
}

//! What only udocker has: options before its commands, options of its network, and `install`.

use std::path::PathBuf;

use clap::Args;

/// Options before the command.
#[derive(Debug, Args)]
pub struct BeforeArgs {
    /// Say on standard error what `run` does, as its --verbose.
    #[arg(long, short = 'D', hide = true)]
    pub debug: bool,
    /// Allow plain http and unknown certificates, as the option of the commands.
    #[arg(long = "insecure", id = "insecure-before", hide = true)]
    pub insecure: bool,
    /// Accepted and without effect: root needs no permission.
    #[arg(long, hide = true)]
    pub allow_root: bool,
    /// Refused: udocker's files of settings are not ours.
    #[arg(long, hide = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How a registry is reached.
#[derive(Debug, Clone, Default, Args)]
pub struct NetArgs {
    /// Take images whose names have no registry from this one instead of Docker's.
    #[arg(long, value_name = "[http://]HOST[:PORT]")]
    pub registry: Option<String>,
    /// Accepted and without effect: only `search` asks an index, and --registry names it.
    #[arg(long, value_name = "URL", hide = true)]
    pub index: Option<String>,
    /// Reach registries through this proxy: http://…, socks4://…, socks4a://…, socks5://… or socks5h://…; it comes before
    /// those of the environment.
    #[arg(long, value_name = "URL")]
    pub httpproxy: Option<String>,
}

/// `coracle install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Accepted and without effect.
    #[arg(long)]
    pub force: bool,
    /// Accepted and without effect.
    #[arg(long)]
    pub purge: bool,
}

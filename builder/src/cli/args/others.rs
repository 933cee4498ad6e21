//! Options of runs that are of Docker's making: health checks, and what is accepted or refused for scripts' sake.

use clap::Args;

/// How a program in the background is asked whether it works.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Health of what runs in the background")]
pub struct HealthArgs {
    /// Ask it by this command, for /bin/sh, instead of the image's HEALTHCHECK.
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between two checks; 30s unless the image says otherwise.
    #[arg(long, value_name = "TIME")]
    pub health_interval: Option<String>,
    /// What a check may take; 30s unless the image says otherwise.
    #[arg(long, value_name = "TIME")]
    pub health_timeout: Option<String>,
    /// How long failures do not count.
    #[arg(long, value_name = "TIME")]
    pub health_start_period: Option<String>,
    /// Time between two checks then.
    #[arg(long, value_name = "TIME")]
    pub health_start_interval: Option<String>,
    /// So many failures in a row make it unhealthy; 3 unless the image says otherwise.
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u64>,
    /// Do not ask.
    #[arg(long)]
    pub no_healthcheck: bool,
}

/// Options of Docker's and udocker's that mean little here: accepted where that does no harm, else refused with a reason.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "For scripts written for Docker and udocker")]
pub struct OtherArgs {
    /// Accepted: no banner is printed.
    #[arg(long)]
    pub nobanner: bool,
    /// Accepted: signals are passed on in any case.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sig_proxy: Option<bool>,
    /// Refused: nobody gives privileges here.
    #[arg(long)]
    pub privileged: bool,
    /// Accepted for root, who has in his namespace what can be had; refused otherwise.
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Refused: no isolation is promised.
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Accepted where it loosens.
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, short, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "BYTES")]
    pub memory_swap: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "N")]
    pub cpu_shares: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<String>,
    /// Refused: /dev/shm is the host's.
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Only no: nobody is there to start it again.
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// Only host: the caller's own ids are all there are.
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// Only host; for another host name there is --hostname.
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// Only none and json-file: logs are kept beside the container.
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// Refused: the network is the host's.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// Refused: the network is the host's.
    #[arg(long, value_name = "CONTAINER")]
    pub link: Vec<String>,
    /// Refused: kernel settings are the node's.
    #[arg(long, value_name = "KEY=VALUE")]
    pub sysctl: Vec<String>,
    /// Accepted: ports need not be announced.
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<String>,
    /// Accepted: signatures are not asked for.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub disable_content_trust: Option<bool>,
    /// Accepted: nobody reads them.
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Accepted: attach is left with Ctrl-P Ctrl-Q.
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Accepted: what the kernel kills first is its matter.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub oom_score_adj: Option<String>,
    /// Refused: supplementary groups are the caller's.
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub memory_swappiness: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "BYTES")]
    pub kernel_memory: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "N")]
    pub cpu_quota: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "DEVICE:RATE")]
    pub device_read_bps: Vec<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "DEVICE:RATE")]
    pub device_write_bps: Vec<String>,
    /// Refused: a limit takes a control group.
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<String>,
    /// Refused: there is no control group.
    #[arg(long, value_name = "GROUP")]
    pub cgroup_parent: Option<String>,
    /// Refused: there is no control group.
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// Refused: the network is the host's.
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// Refused: the network is the host's.
    #[arg(long, value_name = "ADDRESS")]
    pub mac_address: Option<String>,
    /// Refused: the network is the host's.
    #[arg(long, value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// Only local: volumes are directories of the store.
    #[arg(long, value_name = "DRIVER")]
    pub volume_driver: Option<String>,
    /// Refused: trees are directories.
    #[arg(long, value_name = "KEY=VALUE")]
    pub storage_opt: Vec<String>,
    /// Only runc and crun, which mean the same here; for engines there is --execmode.
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,
    /// Only host.
    #[arg(long, value_name = "host")]
    pub cgroupns: Option<String>,
    /// Only default.
    #[arg(long, value_name = "MODE")]
    pub isolation: Option<String>,
    /// Refused: it belongs into --hostname.
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
}

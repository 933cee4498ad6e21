//! Options of a run as typed, resolved: files read, paths made absolute, what cannot be had refused with its reason.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use coracle_api::{Accounts, PortMap, Unshare, env_file};
use coracle_format::{Health, ImageConfig};

use super::{
    args::{HealthArgs, OptionArgs, OtherArgs},
    report, volumes,
};
use crate::{
    launch::{Options, health, log::Bound, signal, stub},
    store::Store,
};

/// Engines, and udocker's names of execution modes.
const ENGINES: [&str; 15] = [
    "auto",
    "namespaces",
    "trap",
    "preload",
    "ptrace",
    "apptainer",
    "P1",
    "P2",
    "R1",
    "F1",
    "F2",
    "F3",
    "F4",
    "S1",
    "default",
];

/// Reads the options of `run` and `create`.
pub(super) fn resolve(args: &OptionArgs, store: &Store, quiet: bool) -> anyhow::Result<Options> {
    others(&args.others)?;
    let mut options = Options {
        entrypoint: args.entrypoint.as_ref().map(|one| if one.is_empty() { vec![] } else { vec![one.clone()] }),
        user: args.user.clone().filter(|user| !user.is_empty()),
        accounts: match (args.hostauth, args.containerauth) {
            (true, _) => Accounts::Host,
            (_, true) => Accounts::Tree,
            _ => Accounts::Known,
        },
        workdir: args.workdir.clone(),
        env: environment(&args.env, &args.env_file)?,
        host_env: args.hostenv,
        home: args.bindhome,
        no_names: args.nosysdirs,
        hostname: args.hostname.clone().filter(|name| !name.is_empty()),
        engine: args.execmode.as_deref().map(engine).transpose()?.flatten(),
        read_only: args.read_only,
        no_metadata: args.nometa,
        stop_timeout: args.stop_timeout,
        interactive: args.interactive,
        tty: args.tty,
        nvidia: args.nvidia,
        devices: args.device.clone(),
        unshare: namespaces(args)?,
        kernel: args.kernel.clone().filter(|release| !release.is_empty()),
        health: health(&args.health)?,
        log: log_bound(&args.log_opt)?,
        ..Options::default()
    };
    if let Some(dir) = options.workdir.as_ref().filter(|dir| !dir.is_absolute()) {
        bail!("--workdir {}: it must be absolute: name a directory as it is inside", dir.display());
    }
    if let Some(name) = &options.hostname {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if name.len() > 64 || !name.to_str().is_some_and(|name| name.chars().all(fine)) {
            bail!("--hostname {}: use at most 64 letters, digits, dots and hyphens", name.display());
        }
    }
    if let Some(gpus) = &args.gpus {
        // Docker's words: all, a number of them, or device=0,1.
        let named = gpus.trim_matches('"').strip_prefix("device=").unwrap_or(gpus);
        options.gpus = Some(named.to_owned());
    }
    volumes::resolve(args, store, quiet, &mut options)?;
    for guest in &args.novol {
        if ["/proc", "/sys", "/dev"].iter().any(|fixed| guest.starts_with(fixed)) {
            bail!("--novol {}: every engine shows it: leave the option out", guest.display());
        }
        options.omit.push(guest.clone());
    }
    for port in &args.publish {
        let maps = PortMap::parse(port);
        let maps = maps.map_err(|why| anyhow!("--publish {port}: {why}: write [[ADDRESS:]HOST:]GUEST[/udp]"))?;
        for map in maps {
            let twice = |one: &PortMap| one.guest == map.guest && one.protocol == map.protocol && one.host != map.host;
            if let Some(before) = options.ports.iter().find(|one| twice(one)) {
                bail!(
                    "--publish {port}: {before} is there already, and a port inside is one outside: leave out one of them"
                );
            }
            options.ports.push(map);
        }
    }
    for limit in &args.ulimit {
        options.limits.push(stub::parse_limit(limit).map_err(|why| anyhow!("--ulimit {limit}: {why}"))?);
    }
    if let Some(list) = &args.cpuset_cpus {
        options.cpus = cpus(list).with_context(|| format!("--cpuset-cpus {list}: write numbers and ranges: 0-3,5"))?;
    }
    if let Some(name) = &args.stop_signal {
        options.stop_signal = Some(signal::parse(name).map_err(|why| anyhow!("--stop-signal {why}"))?);
    }
    for line in &args.add_host {
        options.hosts.push(host_line(line)?);
    }
    options.resolv_conf = resolv_conf(args);
    Ok(options)
}

/// The engine that a name means; none is `auto`.
pub(super) fn engine(name: &str) -> anyhow::Result<Option<String>> {
    if !ENGINES.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        bail!("--execmode {name}: there is no such engine: choose one of {}", ENGINES[..14].join(" "));
    }
    Ok(Some(name.to_owned()).filter(|name| !["auto", "default"].iter().any(|auto| auto.eq_ignore_ascii_case(name))))
}

/// `-e` and `--env-file`: files first, as Docker has it.
pub(super) fn environment(pairs: &[OsString], files: &[PathBuf]) -> anyhow::Result<Vec<(OsString, Option<OsString>)>> {
    let host = |key: &OsStr| std::env::var_os(key);
    let mut all = Vec::new();
    for file in files {
        let text = fs::read(file).with_context(|| format!("--env-file {}", file.display()))?;
        let settings = env_file::settings(&text, host);
        all.extend(settings.map_err(|(line, why)| anyhow!("--env-file {}, line {line}: {why}", file.display()))?);
    }
    for pair in pairs {
        let bytes = pair.as_encoded_bytes();
        if bytes.is_empty() || bytes[0] == b'=' {
            bail!("--env {}: it names no variable: write KEY=VALUE, or KEY to pass yours", pair.display());
        }
        all.push(env_file::setting(pair, host));
    }
    Ok(all)
}

fn namespaces(args: &OptionArgs) -> anyhow::Result<Unshare> {
    let own = |option: &str, value: &Option<String>| match value.as_deref() {
        None | Some("host" | "") => Ok(false),
        Some("private" | "shareable") => Ok(true),
        Some(other) => bail!("--{option} {other}: it cannot be joined: choose host or private"),
    };
    let net = match args.network.as_deref() {
        None | Some("host" | "default") => false,
        Some("none") => true,
        Some(other) => {
            bail!("--network {other}: making networks takes privileges: choose host (the default) or none")
        }
    };
    Ok(Unshare { pid: own("pid", &args.pid)?, ipc: own("ipc", &args.ipc)?, uts: false, net })
}

/// What is refused, each with its reason.
fn others(args: &OtherArgs) -> anyhow::Result<()> {
    let group =
        "a limit takes a control group, which an ordinary user does not have: use the batch system's, or --ulimit";
    let limits = [
        ("memory", &args.memory),
        ("memory-swap", &args.memory_swap),
        ("cpus", &args.cpus),
        ("cpu-shares", &args.cpu_shares),
        ("pids-limit", &args.pids_limit),
    ];
    for (name, value) in limits {
        if let Some(value) = value.as_deref().filter(|value| !["0", "-1"].contains(value)) {
            bail!("--{name} {value}: {group}");
        }
    }
    let one = |name: &str, value: Option<&str>, fine: &[&str], why: &str| match value {
        Some(value) if !fine.contains(&value) => bail!("--{name} {value}: {why}"),
        _ => Ok(()),
    };
    let own_network = "the network is the host's: leave it out";
    one("shm-size", args.shm_size.as_deref(), &[], "/dev/shm is the host's, as large as that is: leave it out")?;
    one("restart", args.restart.as_deref(), &["no", ""], "nobody is there to start it again: choose no")?;
    one("userns", args.userns.as_deref(), &["host", ""], "your own ids are all there are: choose host")?;
    one("uts", args.uts.as_deref(), &["host", ""], "choose host, or give a name with --hostname")?;
    let log = "logs are kept beside the container: leave it out, and see `coracle logs`";
    one("log-driver", args.log_driver.as_deref(), &["json-file", "local", "none"], log)?;
    one("ip", args.ip.as_deref(), &[], own_network)?;
    one("link", args.link.first().map(String::as_str), &[], own_network)?;
    let listed = |values: &[String]| values.first().cloned();
    let group_options: [(&str, Option<String>); 12] = [
        ("memory-reservation", args.memory_reservation.clone()),
        ("memory-swappiness", args.memory_swappiness.clone().filter(|value| value != "-1")),
        ("kernel-memory", args.kernel_memory.clone()),
        ("cpu-period", args.cpu_period.clone().filter(|value| value != "0")),
        ("cpu-quota", args.cpu_quota.clone().filter(|value| value != "0")),
        ("cpuset-mems", args.cpuset_mems.clone()),
        ("blkio-weight", args.blkio_weight.clone().filter(|value| value != "0")),
        ("device-read-bps", listed(&args.device_read_bps)),
        ("device-write-bps", listed(&args.device_write_bps)),
        ("device-cgroup-rule", listed(&args.device_cgroup_rule)),
        ("cgroup-parent", args.cgroup_parent.clone()),
        ("oom-kill-disable", args.oom_kill_disable.then(String::new)),
    ];
    for (name, value) in group_options {
        if let Some(value) = value {
            bail!("--{name} {value}: {group}");
        }
    }
    let ids = "supplementary groups are your own, and nobody gives others: leave it out";
    one("group-add", args.group_add.first().map(String::as_str), &[], ids)?;
    one("ip6", args.ip6.as_deref(), &[], own_network)?;
    one("mac-address", args.mac_address.as_deref(), &[], own_network)?;
    one("network-alias", args.network_alias.first().map(String::as_str), &[], own_network)?;
    let driver = "volumes are directories of the store: leave it out";
    one("volume-driver", args.volume_driver.as_deref(), &["local", ""], driver)?;
    one("storage-opt", args.storage_opt.first().map(String::as_str), &[], "trees are directories: leave it out")?;
    let runtime = "choose an engine with --execmode";
    one("runtime", args.runtime.as_deref(), &["runc", "crun", "io.containerd.runc.v2", ""], runtime)?;
    one("cgroupns", args.cgroupns.as_deref(), &["host", ""], "control groups are the host's: choose host")?;
    one("isolation", args.isolation.as_deref(), &["default", ""], "it is for another system: choose default")?;
    let domain = "give the whole name with --hostname";
    one("domainname", args.domainname.as_deref(), &[""], domain)?;
    one("sysctl", args.sysctl.first().map(String::as_str), &[], "kernel settings are the node's: leave it out")?;
    let dropped = "isolation is not promised, so dropping a capability would promise too much: leave it out";
    one("cap-drop", args.cap_drop.first().map(String::as_str), &[], dropped)?;
    if args.privileged {
        bail!("--privileged: nobody gives privileges here: root inside has what your own account may do: leave it out");
    }
    for option in &args.security_opt {
        let loosens = ["seccomp=unconfined", "apparmor=unconfined", "label=disable", "no-new-privileges"];
        let option = option.replace(':', "=");
        if !loosens.iter().any(|fine| option.starts_with(fine)) {
            bail!("--security-opt {option}: no profile is loaded here: leave it out");
        }
    }
    Ok(())
}

/// `--health-…` and `--no-healthcheck`.
fn health(args: &HealthArgs) -> anyhow::Result<Option<Health>> {
    let time = |name: &str, text: &Option<String>| match text {
        Some(text) => health::parse_time(text).with_context(|| format!("--{name} {text}: write a time: 30s, 1m30s")),
        None => Ok(0),
    };
    let test = match &args.health_cmd {
        _ if args.no_healthcheck => vec!["NONE".to_owned()],
        Some(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        None => Vec::new(),
    };
    let health = Health {
        test,
        interval: time("health-interval", &args.health_interval)?,
        timeout: time("health-timeout", &args.health_timeout)?,
        start_period: time("health-start-period", &args.health_start_period)?,
        start_interval: time("health-start-interval", &args.health_start_interval)?,
        retries: args.health_retries.unwrap_or(0),
    };
    Ok(Some(health).filter(|health| *health != Health::default()))
}

/// `--log-opt max-size=10m --log-opt max-file=3`.
fn log_bound(given: &[String]) -> anyhow::Result<Bound> {
    let mut bound = Bound::default();
    for option in given {
        match option.split_once('=') {
            Some(("max-size", "-1")) => bound.size = 0,
            Some(("max-size", size)) => {
                bound.size = volumes::bytes(size).with_context(|| format!("--log-opt {option}"))?;
            }
            Some(("max-file", number)) => {
                let number = number.parse().ok().filter(|number| (1..=1000).contains(number));
                bound.files = number.with_context(|| format!("--log-opt {option}: write a number from 1 to 1000"))?;
            }
            _ => bail!("--log-opt {option}: there are max-size=SIZE and max-file=NUMBER"),
        }
    }
    Ok(bound)
}

/// `0-3,5`.
fn cpus(list: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last && last < 1024).then_some(())?;
        all.extend(first..=last);
    }
    Some(all)
}

/// `NAME:ADDRESS` or `NAME=ADDRESS` as a line of hosts(5).
fn host_line(text: &str) -> anyhow::Result<String> {
    let (name, address) = text.split_once(['=', ':']).unwrap_or((text, ""));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = if address == "host-gateway" { "127.0.0.1" } else { address };
    if name.is_empty() || name.contains(char::is_whitespace) || address.parse::<std::net::IpAddr>().is_err() {
        bail!("--add-host {text}: write NAME:ADDRESS, with an IP address");
    }
    Ok(format!("{address}\t{name}"))
}

/// A resolv.conf(5) of what was asked for; what was not is the host's.
fn resolv_conf(args: &OptionArgs) -> Option<String> {
    if args.dns.is_empty() && args.dns_search.is_empty() && args.dns_option.is_empty() {
        return None;
    }
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut text = String::new();
    let mut section = |word: &str, given: Vec<String>, is_given: bool| {
        if is_given {
            given.iter().for_each(|line| text += &format!("{word} {line}\n"));
        } else {
            host.lines().filter(|line| line.starts_with(word)).for_each(|line| text += &format!("{line}\n"));
        }
    };
    section("nameserver", args.dns.clone(), !args.dns.is_empty());
    section("search", vec![args.dns_search.join(" ")], !args.dns_search.is_empty());
    section("options", vec![args.dns_option.join(" ")], !args.dns_option.is_empty());
    Some(text)
}

/// Labels as `KEY=VALUE`.
pub(super) fn labels(given: &[String]) -> impl Iterator<Item = (String, String)> {
    given.iter().map(|label| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    })
}

/// A path of the caller's, made absolute.
pub(super) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("cannot find the working directory")?;
    Ok(here.join(path).components().collect())
}

/// Says what of the image is not honoured in this run.
pub(super) fn note_unhonoured(quiet: bool, config: &ImageConfig, options: &Options, detached: bool) {
    if !detached && health::wanted(config.health.as_ref(), options.health.as_ref()).is_some() {
        report::note(quiet, "the image's HEALTHCHECK is not run: it is run for what runs in the background (-d)");
    }
    if options.unshare.net && !config.exposed_ports.is_empty() {
        report::note(quiet, "the ports that the image exposes are those of a network of its own, which nobody reaches");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_and_hosts() {
        assert_eq!(cpus("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(cpus("2-1"), None);
        assert_eq!(cpus(""), None);
        assert_eq!(host_line("a:10.0.0.1").ok().as_deref(), Some("10.0.0.1\ta"));
        assert_eq!(host_line("a=[::1]").ok().as_deref(), Some("::1\ta"));
        assert!(host_line("a:b").is_err() && host_line("a b:1.1.1.1").is_err());
    }

    #[test]
    fn engines_are_known_by_every_name() {
        assert_eq!(engine("P2").ok(), Some(Some("P2".to_owned())));
        assert_eq!(engine("AUTO").ok(), Some(None));
        assert!(engine("R9").is_err_and(|error| error.to_string().contains("choose one of")));
    }
}

//! Which batch job this is, by what batch systems tell their jobs: variables, and HTCondor's file.

use std::fs;

use coracle_api::JobId;

/// A system, and its variables: job, task of an array, step.
struct System {
    name: &'static str,
    id: &'static [&'static str],
    task: &'static [&'static str],
    step: &'static [&'static str],
}

/// In this order: a job of one system may have been started by another's, whose variables it inherits, and these here come
/// from what is nearer to the job more often than not. Grid Engine's come last, for their names are anybody's.
const SYSTEMS: [System; 7] = [
    System {
        name: "slurm",
        id: &["SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "SLURM_JOBID"],
        task: &["SLURM_ARRAY_TASK_ID"],
        step: &["SLURM_STEP_ID", "SLURM_STEPID"],
    },
    System { name: "flux", id: &["FLUX_JOB_ID"], task: &["FLUX_TASK_RANK"], step: &[] },
    System { name: "pbs", id: &["PBS_JOBID"], task: &["PBS_ARRAY_INDEX", "PBS_ARRAYID"], step: &[] },
    System { name: "lsf", id: &["LSB_JOBID"], task: &["LSB_JOBINDEX"], step: &[] },
    System { name: "oar", id: &["OAR_JOB_ID"], task: &["OAR_ARRAY_INDEX"], step: &[] },
    System { name: "gitlab", id: &["CI_JOB_ID"], task: &[], step: &[] },
    System { name: "sge", id: &["JOB_ID"], task: &["SGE_TASK_ID"], step: &[] },
];

/// The job, if this is one.
pub(super) fn of(var: impl Fn(&str) -> Option<String>) -> Option<JobId> {
    let first = |names: &[&str]| {
        names.iter().find_map(|name| var(name).filter(|value| !value.is_empty() && !value.bytes().any(|c| c < b' ')))
    };
    if let Some(ad) = var("_CONDOR_JOB_AD").and_then(|path| fs::read_to_string(path).ok())
        && let Some(job) = condor(&ad)
    {
        return Some(job);
    }
    SYSTEMS.iter().filter(|system| system.name != "sge" || var("SGE_TASK_ID").is_some()).find_map(|system| {
        // What is in no array has task 0 (LSF) or `undefined` (Grid Engine).
        let task = first(system.task)
            .filter(|task| !(system.name == "lsf" && task == "0" || system.name == "sge" && task == "undefined"));
        Some(JobId { system: system.name.to_owned(), id: first(system.id)?, task, step: first(system.step) })
    })
}

/// HTCondor's job ad: a line per attribute.
fn condor(ad: &str) -> Option<JobId> {
    let attribute = |name: &str| {
        ad.lines().filter_map(|line| line.split_once('=')).find_map(|(key, value)| {
            (key.trim().eq_ignore_ascii_case(name)).then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    Some(JobId { system: "htcondor".to_owned(), id: attribute("ClusterId")?, task: attribute("ProcId"), step: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(vars: &[(&str, &str)]) -> Option<(String, String, Option<String>)> {
        let job = of(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))?;
        Some((job.system, job.id, job.task))
    }

    #[test]
    fn each_system_names_its_job_and_its_task() {
        let is = |vars: &[(&str, &str)], system: &str, id: &str, task: Option<&str>| {
            assert_eq!(job(vars), Some((system.to_owned(), id.to_owned(), task.map(str::to_owned))));
        };
        is(&[("SLURM_JOB_ID", "7")], "slurm", "7", None);
        is(
            &[("SLURM_JOB_ID", "9"), ("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "2")],
            "slurm",
            "7",
            Some("2"),
        );
        is(&[("PBS_JOBID", "12[3].server"), ("PBS_ARRAY_INDEX", "3")], "pbs", "12[3].server", Some("3"));
        is(&[("LSB_JOBID", "5"), ("LSB_JOBINDEX", "0")], "lsf", "5", None);
        is(&[("JOB_ID", "5"), ("SGE_TASK_ID", "undefined")], "sge", "5", None);
        is(&[("JOB_ID", "5"), ("SGE_TASK_ID", "4")], "sge", "5", Some("4"));
        assert_eq!(job(&[("JOB_ID", "5")]), None, "anybody may have such a variable");
        assert_eq!(job(&[("SLURM_JOB_ID", "")]), None);
        assert_eq!(job(&[]), None);
    }

    #[test]
    fn condor_names_them_in_its_file() {
        let file = tempfile::NamedTempFile::new().expect("the temporary directory is writable");
        fs::write(file.path(), "Cmd = \"/x\"\nClusterId = 12\nProcId = 3\n").expect("it is ours");
        let path = file.path().to_str().expect("text");
        let found = job(&[("_CONDOR_JOB_AD", path), ("SLURM_JOB_ID", "7")]);
        assert_eq!(found, Some(("htcondor".to_owned(), "12".to_owned(), Some("3".to_owned()))));
    }
}

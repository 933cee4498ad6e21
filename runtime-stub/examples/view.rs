//! Makes the view of a bundle's tree for an engine, and tells what it took: `view BUNDLE ENGINE CACHE`.
//!
//! Prints the view's directory, then in milliseconds the time and the CPU time of unpacking, of making the view, and of
//! finding both again.

use std::{path::Path, time::Instant};

use coracle_stub::{
    cache::{self, CacheOptions, Settings},
    open::Bundle,
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
};

fn cpu() -> i64 {
    let of = |who| {
        let usage = getrusage(who).expect("getrusage");
        usage.user_time() + usage.system_time()
    };
    let sum: TimeVal = of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN);
    sum.num_microseconds()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, bundle, engine, place] = &args[..] else { panic!("usage: view BUNDLE ENGINE CACHE") };
    let bundle = Bundle::open(Path::new(bundle)).expect("a bundle");
    let settings = Settings { cache: Some(place.into()), ..Settings::default() };
    let options = CacheOptions { settings, ..CacheOptions::default() };
    let mut times = Vec::new();
    let mut measure = |what: &str, work: &mut dyn FnMut()| {
        let (began, before) = (Instant::now(), cpu());
        work();
        times.push(format!(
            "{what}: {:.1} ms, {:.1} ms of CPU",
            began.elapsed().as_secs_f64() * 1e3,
            (cpu() - before) as f64 / 1e3
        ));
    };
    let mut tree = None;
    measure("unpack", &mut || tree = Some(cache::acquire(&bundle, &options, &mut |_| ()).expect("a tree")));
    let tree = tree.expect("measured");
    let mut view = None;
    let mut get = || view = Some(cache::view(&bundle, &options, &tree, engine, &mut |_| ()).expect("a view"));
    measure("view", &mut get);
    measure("view found", &mut get);
    println!("{}", view.expect("measured").root.display());
    for line in times {
        println!("{line}");
    }
}

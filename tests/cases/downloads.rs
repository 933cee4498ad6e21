//! Downloads from registries that misbehave: what is resumed, what is tried again, what is refused, and in which words.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use harness::{
    Fake, Reply, Sandbox, coracle, eventually,
    oci::{Layer, OciImage},
};

/// A sandbox with the layout of an image of one layer of a megabyte of noise; the layer's digest and bytes.
fn image() -> (Sandbox, PathBuf, String, Vec<u8>) {
    let sandbox = Sandbox::new();
    let mut noise = vec![0_u8; 1 << 20];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    let layout = sandbox.path().join("layout");
    OciImage::new(serde_json::json!({"Cmd": ["/noise"]}))
        .layer(Layer::new().file("noise", 0o644, &noise))
        .write(&layout)
        .unwrap();
    let blobs = layout.join("blobs/sha256");
    let entries = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let layer = entries.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let digest = format!("sha256:{}", layer.file_name().unwrap().to_str().unwrap());
    let bytes = fs::read(&layer).unwrap();
    (sandbox, layout, digest, bytes)
}

fn blob(digest: &str) -> String {
    format!("/v2/x/blobs/{digest}")
}

fn stored(sandbox: &Sandbox, digest: &str) -> PathBuf {
    sandbox.path().join("home/.coracle/blobs").join(digest.replace(':', "/"))
}

fn partial(sandbox: &Sandbox, digest: &str) -> PathBuf {
    sandbox.path().join("home/.coracle/partial").join(digest.replace(':', "-"))
}

fn pull(sandbox: &Sandbox, fake: &Fake) -> harness::Output {
    sandbox.coracle(["pull", &format!("{}/x", fake.address())])
}

#[test]
fn a_cut_connection_goes_on_where_it_broke() {
    let (sandbox, layout, digest, bytes) = image();
    let path = blob(&digest);
    let whole = bytes.clone();
    let fake = Fake::registry(&layout, move |request| {
        (request.path == path && request.before == 0)
            .then(|| Reply { cut: Some(300_000), ..Reply::new(200, whole.clone()) })
    });
    pull(&sandbox, &fake).ok();
    assert_eq!(fs::read(stored(&sandbox, &digest)).unwrap(), bytes);
    let asked: Vec<_> = fake.requests().into_iter().filter(|request| request.path == blob(&digest)).collect();
    assert_eq!(asked.len(), 2);
    assert!((1..=300_000).contains(&asked[1].from()), "the second asks for the rest: {:?}", asked[1]);
}

#[test]
fn a_registry_that_ignores_ranges_is_believed_all_the_same() {
    let (sandbox, layout, digest, bytes) = image();
    let path = blob(&digest);
    let whole = bytes.clone();
    let fake = Fake::registry(&layout, move |request| {
        (request.path == path).then(|| {
            let cut = (request.before == 0).then_some(300_000);
            Reply { cut, ..Reply::new(200, whole.clone()) }
        })
    });
    pull(&sandbox, &fake).ok();
    assert_eq!(fs::read(stored(&sandbox, &digest)).unwrap(), bytes);
}

#[test]
fn a_layer_that_always_ends_too_early_is_given_up_and_kept_for_later() {
    let (sandbox, layout, digest, bytes) = image();
    let path = blob(&digest);
    let short = bytes[..400_000].to_vec();
    let fake = Fake::registry(&layout, move |request| {
        (request.path == path).then(|| match request.from() {
            0 => Reply::new(200, short.clone()),
            _ => Reply::new(416, ""),
        })
    });
    pull(&sandbox, &fake).fails_with(&["cannot download", &digest, "run the command again"]);
    assert!(!stored(&sandbox, &digest).exists());
    assert!(fake.count("GET", &digest) < 20);
}

#[test]
fn too_many_requests_are_asked_again_when_the_registry_says() {
    let (sandbox, layout, digest, _) = image();
    let path = blob(&digest);
    let fake = Fake::registry(&layout, move |request| {
        let busy = request.before == 0 && (request.path == path || request.path.ends_with("/manifests/latest"));
        busy.then(|| Reply::new(429, "").header("Retry-After", "2"))
    });
    let begin = Instant::now();
    let output = pull(&sandbox, &fake);
    output.ok();
    assert!(begin.elapsed() >= Duration::from_secs(4), "twice two seconds: {:?}", begin.elapsed());
    assert!(output.stderr.contains("429") && output.stderr.contains("trying again in 2 s"), "{output}");
}

#[test]
fn a_wait_of_hours_is_told_and_not_waited() {
    let (sandbox, layout, ..) = image();
    let fake = Fake::registry(&layout, |request| {
        request.path.contains("/manifests/").then(|| Reply::new(429, "").header("Retry-After", "21600"))
    });
    let begin = Instant::now();
    pull(&sandbox, &fake).fails_with(&["limits requests", "360 min"]);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_failing_server_is_tried_again() {
    let (sandbox, layout, digest, _) = image();
    let fake = Fake::registry(&layout, move |request| (request.before == 0).then(|| Reply::new(500, "oops")));
    pull(&sandbox, &fake).ok();
    assert_eq!(fake.count("GET", &digest), 2);
    let down = Fake::start(|request| if request.path == "/v2/" { Reply::new(200, "") } else { Reply::new(503, "") });
    let fresh = Sandbox::new();
    pull(&fresh, &down).fails_with(&["503"]);
    assert!(down.count("GET", "manifests") <= 5);
}

#[test]
fn wrong_bytes_are_refused_and_not_kept() {
    let (sandbox, layout, digest, bytes) = image();
    let path = blob(&digest);
    let mut flipped = bytes;
    flipped[500_000] ^= 1;
    let fake = Fake::registry(&layout, move |request| (request.path == path).then(|| Reply::new(200, flipped.clone())));
    pull(&sandbox, &fake).fails_with(&["wrong bytes", &digest]);
    assert!(!stored(&sandbox, &digest).exists() && !partial(&sandbox, &digest).exists());
}

#[test]
fn more_bytes_than_announced_are_refused() {
    let (sandbox, layout, digest, mut bytes) = image();
    let path = blob(&digest);
    bytes.push(0);
    let fake = Fake::registry(&layout, move |request| (request.path == path).then(|| Reply::new(200, bytes.clone())));
    pull(&sandbox, &fake).fails_with(&["sends more", &digest]);
    assert!(!stored(&sandbox, &digest).exists());
}

#[test]
fn a_manifest_with_another_digest_is_refused() {
    let (sandbox, layout, digest, _) = image();
    let fake = Fake::registry(&layout, |request| {
        request
            .path
            .contains("/manifests/sha256:")
            .then(|| Reply::new(200, r#"{"schemaVersion":2,"layers":[],"config":{}}"#))
    });
    let pinned = format!("{}/x@{digest}", fake.address());
    sandbox.coracle(["pull", &pinned]).fails_with(&["wrong bytes", &digest]);
    let endless = Fake::registry(&layout, |request| {
        request.path.contains("/manifests/").then(|| Reply::new(200, vec![b' '; 5 << 20]))
    });
    pull(&sandbox, &endless).fails_with(&["sends more", "4194304"]);
}

#[test]
fn a_second_pull_moves_no_bytes_and_damage_is_fetched_again() {
    let (sandbox, layout, digest, bytes) = image();
    let fake = Fake::registry(&layout, |_| None);
    let first = pull(&sandbox, &fake).ok().to_owned();
    let blobs = fake.count("GET", "/blobs/");
    assert_eq!(blobs, 2, "config and layer");
    assert_eq!(pull(&sandbox, &fake).ok(), first);
    assert_eq!(fake.count("GET", "/blobs/"), blobs);
    assert_eq!(fake.count("GET", "/manifests/"), 1, "asked by HEAD the second time");
    let path = stored(&sandbox, &digest);
    let mut damaged = bytes.clone();
    damaged[12345] ^= 0x40;
    fs::write(&path, &damaged).unwrap();
    pull(&sandbox, &fake).ok();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fake.count("GET", &digest), 2);
}

#[test]
fn a_killed_pull_leaves_what_the_next_goes_on_from() {
    let (sandbox, layout, digest, bytes) = image();
    let path = blob(&digest);
    let whole = bytes.clone();
    let fake = Fake::registry(&layout, move |request| {
        (request.path == path && request.before == 0)
            .then(|| Reply { pause: Duration::from_millis(200), ..Reply::new(200, whole.clone()) })
    });
    let reference = format!("{}/x", fake.address());
    let mut child = sandbox.command(coracle()).args(["pull", &reference]).spawn().unwrap();
    eventually("a part is there", 30, || {
        fs::metadata(partial(&sandbox, &digest)).is_ok_and(|meta| meta.len() > 100_000)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let had = fs::metadata(partial(&sandbox, &digest)).unwrap().len();
    let output = pull(&sandbox, &fake);
    output.ok();
    assert!(output.stderr.contains("going on at"), "{output}");
    let last = fake.requests().into_iter().rfind(|request| request.path == blob(&digest)).unwrap();
    assert_eq!(last.from() as u64, had);
    assert_eq!(fs::read(stored(&sandbox, &digest)).unwrap(), bytes);
    assert!(!partial(&sandbox, &digest).exists());
}

#[test]
fn what_a_killed_pull_left_may_be_damaged() {
    let (sandbox, layout, digest, bytes) = image();
    let fake = Fake::registry(&layout, |_| None);
    let path = partial(&sandbox, &digest);
    // Another image makes the store first.
    sandbox.coracle(["pull", &format!("{}/nope", fake.address())]).code_is(125);
    fs::write(&path, vec![7; 100_000]).unwrap();
    // The command's user must be able to go on writing it.
    let user = harness::user::ordinary();
    std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid)).unwrap();
    let output = pull(&sandbox, &fake);
    output.ok();
    assert!(output.stderr.contains("damaged"), "{output}");
    assert_eq!(fs::read(stored(&sandbox, &digest)).unwrap(), bytes);
}

#[test]
fn pulls_at_once_share_one_download() {
    let (sandbox, layout, digest, bytes) = image();
    let fake = Fake::registry(&layout, {
        let (path, bytes) = (blob(&digest), bytes.clone());
        move |request| {
            (request.path == path).then(|| Reply { pause: Duration::from_millis(50), ..Reply::new(200, bytes.clone()) })
        }
    });
    let reference = format!("{}/x", fake.address());
    let children: Vec<_> =
        (0..8).map(|_| sandbox.command(coracle()).args(["pull", "-q", &reference]).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fake.count("GET", &digest), 1);
    assert_eq!(fs::read(stored(&sandbox, &digest)).unwrap(), bytes);
}

#[test]
fn a_full_disk_is_told_and_leaves_no_blob() {
    let (mut sandbox, layout, digest, _) = image();
    if harness::skip::unless_root() {
        return;
    }
    let small = sandbox.make_dir("small");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=512k,mode=1777", "tmpfs"])
        .arg(&small)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        harness::skip::because("cannot mount a tmpfs here");
        return;
    }
    let fake = Fake::registry(&layout, |_| None);
    sandbox.set("CORACLE_DIR", small.join("store"));
    let output = pull(&sandbox, &fake);
    let kept = small.join("store/blobs").join(digest.replace(':', "/")).exists();
    assert!(std::process::Command::new("umount").arg(&small).status().unwrap().success());
    output.fails_with(&["No space left on device", "CORACLE_DIR"]);
    assert!(!kept);
}

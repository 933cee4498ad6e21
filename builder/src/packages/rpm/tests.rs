//! The containers, as rpm and Berkeley's tools write them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::*;

/// A header with one string per tag, and an epoch.
fn header(strings: &[(u32, &str)], epoch: u32) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    let mut entry = |tag: u32, kind: u32, offset: usize| {
        for word in [tag, kind, u32::try_from(offset).unwrap(), 1] {
            entries.extend_from_slice(&word.to_be_bytes());
        }
    };
    entry(tag::EPOCH, kind::INT32, 0);
    data.extend_from_slice(&epoch.to_be_bytes());
    for (tag, text) in strings {
        entry(*tag, kind::STRING, data.len());
        data.extend_from_slice(text.as_bytes());
        data.push(0);
    }
    let mut out = Vec::new();
    out.extend_from_slice(&u32::try_from(entries.len() / 16).unwrap().to_be_bytes());
    out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
    [out, entries, data].concat()
}

fn sample(name: &str, long: usize) -> Vec<u8> {
    let filler = "x".repeat(long);
    let source = format!("{name}-src-1.0-2.src.rpm");
    let strings = [
        (tag::NAME, name),
        (tag::VERSION, "1.0"),
        (tag::RELEASE, "2"),
        (tag::LICENCE, "MIT"),
        (tag::SOURCE_RPM, &source),
        (1004, &filler),
    ];
    header(&strings, 3)
}

#[test]
fn a_header_becomes_a_package() {
    let package = package(&sample("tool", 0)).unwrap();
    assert_eq!((&*package.name, &*package.version, package.source.as_deref()), ("tool", "3:1.0-2", Some("tool-src")));
    assert!(package.licences.contains("MIT") && package.homepage.is_none());
    assert!(super::package(&sample("gpg-pubkey", 0)).is_none());
    let whole = sample("tool", 5);
    for cut in 0..whole.len() {
        // Whatever is cut off, nothing is read from beyond.
        let _ = super::package(&whole[..cut]);
    }
}

fn lacks(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        println!("skipped: {program} is not installed");
    }
    found.is_err()
}

/// Packages of many sizes: in one page, in several, and beyond.
const SIZES: [usize; 7] = [0, 100, 3_500, 4_000, 9_000, 70_000, 400_000];

#[test]
fn rpms_own_databases_are_read() {
    if lacks("rpmbuild") || lacks("rpm") {
        return;
    }
    for (backend, file, reader) in
        [("sqlite", "rpmdb.sqlite", sqlite::headers as Reader), ("ndb", "Packages.db", ndb::headers as Reader)]
    {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).env("HOME", dir.path()).output().unwrap();
            assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let (db, define) = (at("db"), format!("_db_backend {backend}"));
        run("rpm", &["--define", &define, "--dbpath", &db, "--initdb"]);
        if !Path::new(&db).join(file).exists() {
            // Debian's rpm is built without ndb.
            println!("skipped: this rpm has no {backend}");
            continue;
        }
        for (number, size) in SIZES.iter().enumerate() {
            let words = "word ".repeat(size / 5);
            let epoch = if number % 2 == 1 { "Epoch: 2\n" } else { "" };
            let spec = format!(
                "Name: tool{number}\n{epoch}Version: 1.{number}\nRelease: 7\nSummary: s\nLicense: MIT AND Zlib\nURL: https://e.org\n\
                 Packager: P <p@e.org>\nBuildArch: noarch\n%description\n{words}\n%files\n"
            );
            fs::write(dir.path().join("tool.spec"), spec).unwrap();
            run("rpmbuild", &["-bb", "--quiet", "--define", &format!("_topdir {}", at("top")), &at("tool.spec")]);
            let package = at(&format!("top/RPMS/noarch/tool{number}-1.{number}-7.noarch.rpm"));
            let options = ["--define", &define, "--dbpath", &db, "--justdb", "--nodeps", "--noscripts", "-i", &package];
            run("rpm", &options);
        }
        run("rpm", &["--define", &define, "--dbpath", &db, "--nodeps", "--justdb", "-e", "tool2"]);
        let format = "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH} %{LICENSE}\n";
        let theirs = run("rpm", &["--define", &define, "--dbpath", &db, "-qa", "--qf", format]);
        let mut theirs: Vec<&str> = theirs.lines().collect();
        theirs.sort_unstable();
        let database = fs::read(Path::new(&db).join(file)).unwrap();
        let found: Vec<Package> = reader(&database).unwrap().iter().filter_map(|header| package(header)).collect();
        let mut ours: Vec<String> = found
            .iter()
            .map(|one| {
                let licence = one.licences.first().unwrap();
                format!("{} {} {} {licence}", one.name, one.version, one.architecture.as_deref().unwrap())
            })
            .collect();
        ours.sort_unstable();
        assert_eq!(ours, theirs, "{backend}");
        assert!(found.iter().all(|one| one.maintainer.as_deref() == Some("P <p@e.org>")), "{backend}");
        damage(&database, reader);
    }
}

#[test]
fn a_database_in_ndbs_layout_is_read() {
    let word = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let mut file = vec![0; 4096];
    file[..4].copy_from_slice(b"RpmP");
    file[12..16].copy_from_slice(&word(1));
    for (number, size) in SIZES.iter().enumerate() {
        let (header, unit) = (sample(&format!("tool{number}"), *size), file.len() / 16);
        // The second slot that is not the file's own header is free, as after a removal.
        let slot = 16 * (2 + number + usize::from(number > 0));
        file[slot..slot + 16].copy_from_slice(&[*b"Slot", word(number + 1), word(unit), word(0)].concat());
        file.extend_from_slice(&[*b"BlbS", word(number + 1), word(1), word(header.len())].concat());
        file.extend_from_slice(&header);
        file.resize(file.len().next_multiple_of(16) + 16, 0);
    }
    let found: Vec<String> = ndb::headers(&file).unwrap().iter().map(|header| package(header).unwrap().name).collect();
    assert_eq!(found, (0..SIZES.len()).map(|number| format!("tool{number}")).collect::<Vec<_>>());
    damage(&file, ndb::headers);
}

#[test]
fn a_database_of_berkeleys_is_read() {
    if lacks("db5.3_load") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Packages");
    // As rpm does it: the key is the header's number; under number 0 is the next one, which is no header.
    let mut dump =
        "VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=4096\nHEADER=END\n 00000000\n 09000000\n".to_owned();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (number, size) in SIZES.iter().enumerate() {
        let key = u32::try_from(number + 1).unwrap().to_le_bytes();
        dump += &format!(" {}\n {}\n", hex(&key), hex(&sample(&format!("tool{number}"), size + 4_096)));
    }
    dump += "DATA=END\n";
    fs::write(dir.path().join("dump"), dump).unwrap();
    let loaded = Command::new("db5.3_load").arg("-f").arg(dir.path().join("dump")).arg(&path).status().unwrap();
    assert!(loaded.success());
    let database = fs::read(&path).unwrap();
    let mut names: Vec<String> =
        bdb::headers(&database).unwrap().iter().filter_map(|header| Some(package(header)?.name)).collect();
    names.sort_unstable();
    assert_eq!(names, (0..SIZES.len()).map(|number| format!("tool{number}")).collect::<Vec<_>>());
    damage(&database, bdb::headers);
}

/// Whatever a database claims, reading it ends, and without a panic.
fn damage(database: &[u8], reader: Reader) {
    let mut seed = 0x9e37_79b9_u32;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        usize::try_from(seed).unwrap()
    };
    for _ in 0..300 {
        let mut bytes = database.to_vec();
        for _ in 0..20 {
            let at = next() % bytes.len();
            bytes[at] = u8::try_from(next() % 256).unwrap();
        }
        bytes.truncate(bytes.len() - next() % 5_000);
        for header in reader(&bytes).unwrap_or_default() {
            let _ = package(&header);
        }
    }
}

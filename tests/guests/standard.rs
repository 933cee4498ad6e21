//! What Rust's standard library makes of an engine, in a static position-independent program: files, threads, processes,
//! sockets. It prints nothing that differs from run to run.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
        net::{UnixDatagram, UnixListener, UnixStream},
        process::{CommandExt, ExitStatusExt},
    },
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

fn show<T: std::fmt::Debug>(what: &str, result: io::Result<T>) {
    match result {
        Ok(value) => println!("{what}: {value:?}"),
        Err(error) => println!("{what}: {:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

fn files() -> io::Result<()> {
    fs::create_dir_all("a/b/c")?;
    fs::write("a/b/c/file", "text of a file\n")?;
    show("read", fs::read_to_string("a/b/c/../c/file"));
    symlink("a/b", "link")?;
    show("canonical", fs::canonicalize("link/c/file"));
    show("link", fs::read_link("link"));
    show("copy", fs::copy("link/c/file", "copy"));
    show("copy to the tree", fs::copy("copy", "/etc/copy"));
    show("hard link", fs::hard_link("copy", "hard"));
    show("links", fs::metadata("copy").map(|file| (file.nlink(), file.len(), file.permissions().mode() & 0o7777)));
    show("rename", fs::rename("copy", "a/moved"));
    show("exists", fs::exists("copy"));
    let mut file = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o640).open("appended")?;
    for line in 0..1000 {
        writeln!(file, "line {line}")?;
    }
    file.seek(SeekFrom::Start(0))?;
    println!("lines {}", BufReader::new(&file).lines().count());
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 5)?;
    println!("{bytes:?}");
    show("length", file.set_len(10).and_then(|()| file.metadata()).map(|file| file.len()));
    show("times", file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)));
    show("modified", file.metadata().map(|file| file.mtime()));
    show("lock", file.lock().and_then(|()| file.unlock()));
    fs::DirBuilder::new().mode(0o700).create("private")?;
    show("mode", fs::set_permissions("private", fs::Permissions::from_mode(0o500)));
    let names: BTreeSet<_> = fs::read_dir(".")?.filter_map(|entry| entry.ok().map(|entry| entry.file_name())).collect();
    println!("{names:?}");
    show("remove", fs::remove_dir("a"));
    show("remove all", fs::remove_dir_all("a"));
    show("missing", fs::metadata("a/b/c/file").map(drop));
    show("read-only", fs::write("/etc/new", ""));
    show("program", env::current_exe());
    show("directory", env::current_dir());
    Ok(())
}

fn threads() {
    let (send, receive) = mpsc::channel();
    let workers: Vec<_> = (0..8_u64)
        .map(|at| {
            let send = send.clone();
            thread::spawn(move || {
                let found = (0..200).filter(|_| fs::metadata("/etc/passwd").is_ok()).count();
                send.send(at * found as u64).unwrap();
            })
        })
        .collect();
    drop(send);
    println!("threads {} {}", workers.len(), receive.iter().sum::<u64>());
    println!("panic {}", thread::spawn(|| panic!("on purpose")).join().is_err());
}

fn processes() -> io::Result<()> {
    let own = env::current_exe()?;
    let output = Command::new(&own).arg("--echo").arg("one two").env("PROBE", "yes").current_dir("/dir").output()?;
    print!("{}{}", String::from_utf8_lossy(&output.stdout), output.status);
    println!();
    let mut child = Command::new("/proc/self/exe").arg("--cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().unwrap().write_all(b"through pipes\n")?;
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text)?;
    print!("{text}");
    show("status", child.wait().map(|status| status.code()));
    show("missing", Command::new("/no/such").status());
    show("no program", Command::new("/etc/passwd").status());
    let mut child = Command::new(&own).arg("--sleep").spawn()?;
    child.kill()?;
    show("killed", child.wait().map(|status| status.signal()));
    let pids: Vec<_> = (0..20).map(|_| Command::new(&own).arg("--echo").stdout(Stdio::null()).spawn()).collect();
    println!("many {}", pids.into_iter().filter(|child| child.is_ok()).map(|child| child.unwrap().wait()).count());
    io::stdout().flush()?;
    Err(Command::new(own).arg0("another name").arg("--echo").arg("replaced").exec())
}

fn sockets() -> io::Result<()> {
    let listener = UnixListener::bind("socket")?;
    show("own name", listener.local_addr().map(|address| address.as_pathname().map(ToOwned::to_owned)));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the server").unwrap();
    });
    let mut text = String::new();
    UnixStream::connect("/work/socket")?.read_to_string(&mut text)?;
    println!("{text}");
    server.join().unwrap();
    let (a, b) = (UnixDatagram::bind("/work/a")?, UnixDatagram::bind("b")?);
    a.send_to(b"datagram", "/work/b")?;
    let mut bytes = [0; 32];
    show("received", b.recv_from(&mut bytes).map(|(len, from)| (len, from.as_pathname().map(ToOwned::to_owned))));
    show("nobody there", UnixStream::connect("/work/none").map(drop));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let client = thread::spawn(move || TcpStream::connect(address).unwrap().write_all(b"over tcp").unwrap());
    let mut text = String::new();
    listener.accept()?.0.read_to_string(&mut text)?;
    client.join().unwrap();
    println!("{text}");
    let (one, two) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("[::1]:0"));
    one.send_to(b"over udp", one.local_addr()?)?;
    println!("{:?} {}", one.recv(&mut bytes)?, two.is_ok());
    Ok(())
}

fn main() {
    let mut args = env::args();
    let name = args.next();
    match args.next().as_deref() {
        Some("--echo") => {
            println!("{name:?} {:?} {:?} {:?}", args.collect::<Vec<_>>(), env::var("PROBE"), env::current_dir());
            return;
        }
        Some("--cat") => {
            io::copy(&mut io::stdin(), &mut io::stdout()).unwrap();
            return;
        }
        Some("--sleep") => return thread::sleep(Duration::from_secs(50)),
        _ => {}
    }
    env::set_current_dir("/work").unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    show("files", files());
    threads();
    show("sockets", sockets());
    show("processes", processes());
}

/* Processes that speak with each other: System V, POSIX, pipes, descriptors, memory. */
#include "probe.h"
#include <fcntl.h>
#include <mqueue.h>
#include <sys/file.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static void child(void (*does)(void *), void *with) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) { does(with); fflush(stdout); _exit(0); }
    int status;
    T(waitpid(pid, &status, 0) == pid);
    printf("ended %x\n", status);
}

static int shm, sem, queue;
static void system_v(void *nothing) {
    char *memory = shmat(shm, NULL, 0);
    strcpy(memory, "shared"); T(shmdt(memory));
    struct sembuf up = {0, 2, 0}; T(semop(sem, &up, 1));
    struct { long type; char text[8]; } message = {7, "message"}; T(msgsnd(queue, &message, 8, 0));
}

static void posix(void *memory) {
    sem_t *named = sem_open("/coracle-probe", 0);
    T(named != SEM_FAILED); strcpy((char *)memory + 64, "by name"); T(sem_post(named)); T(sem_post((sem_t *)memory)); sem_close(named);
}

static void descriptors(void *socket) {
    char text[8], control[64]; struct iovec into = {text, 8};
    struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    T(recvmsg(*(int *)socket, &message, 0));
    int fd; memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    T(read(fd, text, 8)); char path[32]; snprintf(path, 32, "/proc/self/fd/%d", fd); char name[PATH_MAX]; show("passed", name, readlink(path, name, sizeof name));
}

int main(void) {
    chdir("/work"); signal(SIGPIPE, SIG_IGN);
    /* System V. */
    shm = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600); sem = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600); queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    T(shm >= 0); T(sem >= 0); T(queue >= 0);
    char *memory = shmat(shm, NULL, 0); T(memory != (void *)-1);
    child(system_v, NULL); printf("%s\n", memory); T(semctl(sem, 0, GETVAL)); struct { long type; char text[8]; } got; T(msgrcv(queue, &got, 8, 7, IPC_NOWAIT)); printf("%ld %s\n", got.type, got.text); T(msgrcv(queue, &got, 8, 7, IPC_NOWAIT));
    struct sembuf down = {0, -3, IPC_NOWAIT}; T(semop(sem, &down, 1)); struct timespec soon = {0, 10000000}; down.sem_flg = 0; T(semtimedop(sem, &down, 1, &soon));
    struct shmid_ds about; T(shmctl(shm, IPC_STAT, &about)); printf("attached %ld owner %d\n", (long)about.shm_nattch, about.shm_perm.uid == getuid());
    T(shmdt(memory)); T(shmctl(shm, IPC_RMID, NULL)); T(semctl(sem, 0, IPC_RMID)); T(msgctl(queue, IPC_RMID, NULL)); T(shmctl(shm, IPC_STAT, &about));
    put("key", ""); T(ftok("key", 1) != -1); T(ftok("/etc/passwd", 1) != -1); T(ftok("/none", 1));
    /* POSIX. */
    shm_unlink("/coracle-probe"); sem_unlink("/coracle-probe");
    int fd = shm_open("/coracle-probe", O_CREAT | O_EXCL | O_RDWR, 0600); T(fd >= 0); T(ftruncate(fd, 4096));
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); T(sem_init((sem_t *)shared, 1, 0));
    sem_t *named = sem_open("/coracle-probe", O_CREAT | O_EXCL, 0600, 0); T(named != SEM_FAILED); T(sem_trywait(named));
    child(posix, shared); T(sem_trywait(named)); T(sem_trywait((sem_t *)shared)); printf("%s\n", shared + 64);
    T(shm_open("/coracle-probe", O_CREAT | O_EXCL | O_RDWR, 0600)); show_link("/dev/shm/none"); T(access("/dev/shm/coracle-probe", R_OK | W_OK));
    T(sem_close(named)); T(sem_unlink("/coracle-probe")); T(shm_unlink("/coracle-probe")); T(shm_unlink("/coracle-probe"));
    mqd_t mq = mq_open("/coracle-probe", O_CREAT | O_RDWR, 0600, NULL); T(mq != -1); if (mq != -1) { T(mq_send(mq, "posix", 6, 1)); struct mq_attr attr; mq_getattr(mq, &attr); char *text = malloc(attr.mq_msgsize); T(mq_receive(mq, text, attr.mq_msgsize, NULL)); mq_close(mq); T(mq_unlink("/coracle-probe")); }
    /* Pipes and fifos. */
    int ends[2]; T(pipe2(ends, O_NONBLOCK | O_CLOEXEC)); T(write(ends[1], "abc", 3)); T(fcntl(ends[0], F_GETPIPE_SZ)); char text[64]; T(read(ends[0], text, 64)); T(read(ends[0], text, 64)); close(ends[0]); T(write(ends[1], "x", 1));
    T(mkfifo("fifo", 0600)); T(open("fifo", O_WRONLY | O_NONBLOCK)); int reader = open("fifo", O_RDONLY | O_NONBLOCK); int writer = open("fifo", O_WRONLY); T(write(writer, "fifo", 4)); T(read(reader, text, 64)); T(mkfifo("/etc/fifo", 0600));
    /* Locks. */
    put("lock", "x"); int one = open("lock", O_RDWR), two = open("lock", O_RDWR); T(flock(one, 2)); T(flock(two, 2 | 4)); struct flock range = {.l_type = F_WRLCK, .l_len = 1}; T(fcntl(one, F_SETLK, &range)); T(fcntl(two, F_OFD_SETLK, &range)); T(fcntl(two, F_GETLK, &range)); printf("lock %d\n", range.l_type); T(lockf(one, F_TEST, 1));
    /* Descriptors that travel. */
    int pair[2]; T(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)); int file = open("/dir/file", O_RDONLY); char control[CMSG_SPACE(sizeof(int))]; memset(control, 0, sizeof control);
    struct iovec piece = {"x", 1}; struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control}; struct cmsghdr *head = CMSG_FIRSTHDR(&message); head->cmsg_level = SOL_SOCKET; head->cmsg_type = SCM_RIGHTS; head->cmsg_len = CMSG_LEN(sizeof(int)); memcpy(CMSG_DATA(head), &file, sizeof file);
    T(sendmsg(pair[0], &message, 0)); child(descriptors, &pair[1]);
    int on = 1; T(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on)); T(write(pair[0], "y", 1)); char creds[64]; struct iovec into = {text, 64}; struct msghdr reply = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = creds, .msg_controllen = sizeof creds}; T(recvmsg(pair[1], &reply, 0)); struct ucred who; memcpy(&who, CMSG_DATA(CMSG_FIRSTHDR(&reply)), sizeof who); printf("from me: %d %d %d\n", who.pid == getpid(), who.uid == getuid(), who.gid == getgid());
    /* What one waits for. */
    int event = eventfd(3, EFD_NONBLOCK), timer = timerfd_create(CLOCK_MONOTONIC, 0), poll_ = epoll_create1(0); struct itimerspec when = {.it_value = {0, 1000000}}; T(timerfd_settime(timer, 0, &when, NULL));
    struct epoll_event wait = {.events = EPOLLIN}; T(epoll_ctl(poll_, EPOLL_CTL_ADD, event, &wait)); T(epoll_ctl(poll_, EPOLL_CTL_ADD, timer, &wait)); struct epoll_event ready[4]; usleep(20000); T(epoll_wait(poll_, ready, 4, 1000)); uint64_t count; T(read(event, &count, 8)); printf("count %d\n", (int)count); T(read(timer, &count, 8)); T(epoll_wait(poll_, ready, 4, 0));
    sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR1); sigprocmask(SIG_BLOCK, &set, NULL); int signals = signalfd(-1, &set, SFD_NONBLOCK); struct signalfd_siginfo info; T(read(signals, &info, sizeof info)); kill(getpid(), SIGUSR1); T(read(signals, &info, sizeof info)); printf("signal %d from me %d\n", info.ssi_signo, info.ssi_pid == (unsigned)getpid());
    mkdir("watched", 0755); int watch = inotify_init1(IN_NONBLOCK); T(inotify_add_watch(watch, "watched", IN_CREATE | IN_DELETE | IN_MOVED_TO) > 0); T(inotify_add_watch(watch, "/none", IN_CREATE)); T(inotify_add_watch(watch, "/etc", IN_CREATE) > 0); put("watched/new", "x"); rename("watched/new", "watched/other"); unlink("watched/other");
    char events[1024]; long len = read(watch, events, sizeof events); for (char *at = events; at < events + len;) { struct inotify_event *event = (void *)at; printf("event %x %s\n", event->mask, event->len ? event->name : ""); at += sizeof *event + event->len; }
    /* Memory. */
    int sealed = (int)syscall(SYS_memfd_create, "sealed", 3); T(ftruncate(sealed, 10)); T(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW)); T(write(sealed, "x", 1)); T(ftruncate(sealed, 20)); T(fcntl(sealed, F_GET_SEALS)); show_link("/proc/self/fd/none");
    struct iovec local = {text, 4}, remote = {"far", 4}; T(syscall(SYS_process_vm_readv, getpid(), &local, 1, &remote, 1, 0)); printf("%s\n", text);
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0); T(self >= 0); T(syscall(SYS_pidfd_send_signal, self, 0, NULL, 0)); T(syscall(SYS_pidfd_getfd, self, file, 0) >= 0);
    return 0;
}

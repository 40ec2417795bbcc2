//! The faults, in the order of their numbers.

use super::Fault;

const fn fault(
    number: u32,
    fault: &'static str,
    made: &'static str,
    expected: &'static str,
) -> Fault {
    Fault { number, fault, made, expected }
}

/// All of them.
pub const FAULTS: &[Fault] = &[
    fault(
        1,
        "a worker dies in a node",
        "`kill -9` while its node calls a server",
        "another goes on within 5 s; one idempotency key",
    ),
    fault(
        2,
        "a node kills its worker each time",
        "a command that does `kill -9 $PPID`, four workers",
        "failed as *worker lost* after three; no hot loop",
    ),
    fault(
        3,
        "the same beside 50 others on the same worker",
        "50 calls held on one worker, then the poison; three more workers",
        "none of the 50 is lost, failed or dead-lettered",
    ),
    fault(
        4,
        "all connections to the broker are closed, 20 times",
        "`rabbitmqctl close_all_connections` under load",
        "work goes on within 5 s each time; as many connections after as before",
    ),
    fault(
        5,
        "the broker is killed",
        "10,000 jobs waiting, 50 running; `kill -9`, start",
        "all end; nothing runs twice",
    ),
    fault(
        6,
        "the broker freezes",
        "SIGSTOP for 60 s, ten submissions a second",
        "each gets its 202 within 1 s; all run after",
    ),
    fault(
        7,
        "memory alarm",
        "a high watermark of 1 MiB",
        "the api answers within 1 s; what runs ends; the rest follows after",
    ),
    fault(
        8,
        "disk alarm",
        "a disk limit that no disk has",
        "the api answers within 1 s; what runs ends; the rest follows after",
    ),
    fault(
        9,
        "the api dies between commit and confirm",
        "a proxy swallows what the broker answers; 202; `kill -9`; heal",
        "all run, once each",
    ),
    fault(
        10,
        "a lane's queue is unbound, or deleted",
        "as an operator would, in between submissions",
        "returned, kept as a row, told in log and metric, delivered when it is back",
    ),
    fault(
        11,
        "a queue is deleted under its consumer",
        "with a worker on it",
        "it is declared and consumed anew",
    ),
    fault(
        12,
        "`consumer_timeout` shorter than a node",
        "a broker with 2 s, a node of more than that",
        "the node is executed once, and the worker goes on",
    ),
    fault(
        13,
        "10,000 delays of 1,000 h beside ready work",
        "a batch of delayed actions, then 20 actions one after the other",
        "they are as fast as without",
    ),
    fault(
        14,
        "a delay longer than every time-out",
        "a delay of 2 s in a node with a time-out of 0.1 s",
        "it fires once",
    ),
    fault(
        15,
        "one slow worker, three idle ones, 100 long nodes",
        "one worker's link to Postgres is slowed; 25 slots each; calls that are held",
        "100 calls at the same time: nobody hoards",
    ),
    fault(
        16,
        "SIGTERM with work running and prefetched",
        "4 slots, 20 actions; SIGTERM; a second worker",
        "what runs ends where it runs; the rest elsewhere; once each",
    ),
    fault(
        17,
        "the leader freezes, is replaced, and wakes",
        "SIGSTOP, a standby, SIGCONT",
        "it changes nothing; what is due is done once",
    ),
    fault(
        18,
        "the leader dies between commit and publishing",
        "a proxy swallows what it sends; a due delay; `kill -9`",
        "the next leader sends the row",
    ),
    fault(
        19,
        "the leader's link to Postgres is cut",
        "a proxy that forwards nothing",
        "another leads within 20 s; the old one stands by when the link is back",
    ),
    fault(
        20,
        "the same job published five times at once",
        "ten starts, each five times, two workers",
        "executed once each",
    ),
    fault(
        21,
        "a worker freezes, is replaced, and wakes",
        "SIGSTOP in a node for 60 s, another worker, SIGCONT",
        "the late result changes nothing; the worker works again",
    ),
    fault(
        22,
        "all sessions of Postgres are terminated, again and again",
        "`pg_terminate_backend` every 500 ms for 30 s under load",
        "every answer is 202 or 503; what got a 202 ends",
    ),
    fault(
        23,
        "Postgres restarts in the middle of batches",
        "restart, `kill -9`, restart under load",
        "every answer is 202 or 503; what got a 202 ends",
    ),
    fault(24, "a payload over the limit", "20 MiB", "413; nothing stored, nothing queued"),
    fault(25, "600 reconnects", "a proxy cuts all links to the broker", "memory does not grow"),
    fault(
        26,
        "a worker dies at the moment of delivery",
        "`kill -9` when the first call arrives, five times",
        "all end; no key is missing",
    ),
    fault(
        27,
        "every message is looked at 30 times",
        "*get* with requeue, as the console does it",
        "all run",
    ),
    fault(
        28,
        "the queues are purged",
        "purged with messages in them and workers frozen, then new load",
        "refilled within 60 s",
    ),
    fault(
        29,
        "a queue exists with other arguments",
        "a classic queue under a lane's name",
        "the log names it; other lanes work",
    ),
    fault(
        30,
        "clocks that are an hour off",
        "libfaketime: api and worker an hour ahead, scheduler an hour behind",
        "delays, retries and time-outs are on time",
    ),
];

//! The first and the last lines of an attempt, within a limit.

use std::collections::VecDeque;
use std::time::Instant;

use super::lines::Lines;
use super::{LINE_WEIGHT, Line, Page, Stream};
use crate::secret::Mask;

/// All that is kept of what one attempt prints. What it holds in memory is within the limit, too.
#[derive(Debug)]
pub struct Book {
    streams: [Lines; 3],
    /// Lines that were printed so far.
    count: i64,
    /// What the head can still take; none once a line did not fit, and all that follows is the tail.
    head_room: Option<usize>,
    /// The number of the head's last line.
    head_end: i64,
    /// Lines of the head that are not given out yet.
    head: Vec<Line>,
    tail: VecDeque<Kept>,
    tail_weight: usize,
    tail_limit: usize,
    left_out: LeftOut,
    /// The weight of what is not given out yet.
    waiting: usize,
}

/// A line of the tail. Its text is gone once it is given out.
#[derive(Debug)]
struct Kept {
    seq: i64,
    weight: usize,
    line: Option<Line>,
}

#[derive(Debug, Default)]
struct LeftOut {
    lines: i64,
    bytes: usize,
    /// One of them was given out before, and has to be forgotten.
    stored: bool,
    /// The newest numbers are not given out yet.
    is_news: bool,
}

impl Book {
    /// Keeps `limit` bytes, half of them from the start and half from the end; a line counts with its bytes and
    /// [`LINE_WEIGHT`]. With a limit of 0 nothing is kept.
    pub fn new(limit: usize, mask: &Mask) -> Self {
        Self {
            streams: std::array::from_fn(|_| Lines::new(mask.clone())),
            count: 0,
            head_room: Some(limit / 2),
            head_end: 0,
            head: Vec::new(),
            tail: VecDeque::new(),
            tail_weight: 0,
            tail_limit: limit / 2,
            left_out: LeftOut::default(),
            waiting: 0,
        }
    }

    /// Takes what was printed at `at`. Secrets are masked before anything is cut, however the bytes come.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], at: Instant) {
        if self.tail_limit == 0 {
            return;
        }
        let mut lines = Vec::new();
        self.streams[place(stream)].push(bytes, |text| lines.push(text));
        lines.into_iter().for_each(|text| self.add(stream, text, at));
    }

    /// Takes what has no line end: nothing more comes.
    pub fn finish(&mut self, at: Instant) {
        for stream in [Stream::Stdout, Stream::Stderr, Stream::Log] {
            let mut lines = Vec::new();
            self.streams[place(stream)].finish(|text| lines.push(text));
            lines.into_iter().for_each(|text| self.add(stream, text, at));
        }
    }

    /// The weight of the lines that are not given out yet.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether the head is full, so that what comes replaces what came before it.
    pub fn is_turning(&self) -> bool {
        self.head_room.is_none()
    }

    fn add(&mut self, stream: Stream, text: String, at: Instant) {
        self.count += 1;
        let weight = text.len() + LINE_WEIGHT;
        let line = Line { seq: self.count, stream, at, text };
        self.waiting += weight;
        match self.head_room.filter(|room| *room >= weight) {
            Some(room) => {
                self.head_room = Some(room - weight);
                self.head_end = line.seq;
                self.head.push(line);
            }
            None => {
                self.head_room = None;
                self.tail_weight += weight;
                self.tail.push_back(Kept { seq: line.seq, weight, line: Some(line) });
                self.leave_out();
            }
        }
    }

    fn leave_out(&mut self) {
        while self.tail_weight > self.tail_limit
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_weight -= oldest.weight;
            self.left_out.lines += 1;
            self.left_out.bytes += oldest.weight - LINE_WEIGHT;
            self.left_out.is_news = true;
            match oldest.line {
                Some(_) => self.waiting -= oldest.weight,
                None => self.left_out.stored = true,
            }
        }
    }

    /// What is to be stored now; none when nothing is new.
    pub fn take(&mut self, at: Instant) -> Option<Page> {
        let mut page = Page { lines: std::mem::take(&mut self.head), forgotten: None };
        if std::mem::take(&mut self.left_out.is_news) {
            let LeftOut { lines, bytes, .. } = self.left_out;
            let noun = if lines == 1 { "line" } else { "lines" };
            let text = format!("{lines} {noun} ({bytes} bytes) left out");
            // In the place of the first of them.
            let seq = self.head_end + 1;
            page.lines.push(Line { seq, stream: Stream::Cut, at, text });
            if std::mem::take(&mut self.left_out.stored) {
                page.forgotten = Some((seq, self.tail.front().map_or(i64::MAX, |kept| kept.seq)));
            }
        }
        page.lines.extend(self.tail.iter_mut().filter_map(|kept| kept.line.take()));
        self.waiting = 0;
        (!page.lines.is_empty()).then_some(page)
    }
}

fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::Log | Stream::Cut => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What the table holds after some pages.
    #[derive(Default)]
    struct Table(BTreeMap<i64, (Stream, String)>);

    impl Table {
        fn store(&mut self, page: Option<Page>) {
            let page = page.unwrap_or_default();
            if let Some((from, to)) = page.forgotten {
                self.0.retain(|seq, _| *seq <= from || *seq >= to);
            }
            for line in page.lines {
                self.0.insert(line.seq, (line.stream, line.text));
            }
        }

        fn texts(&self) -> Vec<&str> {
            self.0.values().map(|(_, text)| text.as_str()).collect()
        }
    }

    fn book(limit: usize) -> Book {
        Book::new(limit, &Mask::default())
    }

    #[test]
    fn what_fits_is_kept_whole_and_given_out_once() {
        let (mut book, now) = (book(10_000), Instant::now());
        assert_eq!(book.take(now), None);
        book.write(Stream::Stdout, b"a\nb", now);
        book.write(Stream::Stderr, b"oh\n", now);
        assert_eq!(book.waiting(), 3 + 2 * LINE_WEIGHT);
        let page = book.take(now).expect("two lines");
        let told: Vec<_> = page.lines.iter().map(|l| (l.seq, l.stream, l.text.as_str())).collect();
        assert_eq!(told, [(1, Stream::Stdout, "a"), (2, Stream::Stderr, "oh")]);
        assert_eq!((book.take(now), book.waiting()), (None, 0));
        book.finish(now);
        assert_eq!(book.take(now).expect("the rest").lines[0].text, "b");
    }

    /// However often it is stored, what remains is the same, and never much more than the limit.
    #[test]
    fn head_and_tail_remain_with_a_note_of_what_was_left_out() {
        let weight = 4 + LINE_WEIGHT;
        let mut endings = Vec::new();
        for every in [1, 3, 7, 1_000] {
            let (mut book, now, mut table) = (book(10 * weight), Instant::now(), Table::default());
            for number in 1..=100 {
                book.write(Stream::Stdout, format!("{number:04}\n").as_bytes(), now);
                if number % every == 0 {
                    table.store(book.take(now));
                    assert!(table.0.len() <= 11, "{:?}", table.texts());
                }
            }
            book.finish(now);
            table.store(book.take(now));
            endings.push(table.texts().join(" "));
        }
        let note = "90 lines (360 bytes) left out";
        let whole = format!("0001 0002 0003 0004 0005 {note} 0096 0097 0098 0099 0100");
        assert!(endings.iter().all(|ending| *ending == whole), "{endings:#?}");
    }

    #[test]
    fn a_line_too_long_for_half_the_limit_is_left_out() {
        let (mut book, now, mut table) = (book(200), Instant::now(), Table::default());
        book.write(Stream::Log, &[b'x'; 500], now);
        book.finish(now);
        table.store(book.take(now));
        assert_eq!(table.texts(), ["1 line (500 bytes) left out"]);
    }

    #[test]
    fn with_a_limit_of_nothing_nothing_is_kept() {
        let (mut book, now) = (book(0), Instant::now());
        book.write(Stream::Log, b"x\n", now);
        book.finish(now);
        assert_eq!(book.take(now), None);
    }
}

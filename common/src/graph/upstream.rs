//! Whether the nodes that an expression names come before it.

use std::collections::HashMap;

use super::NodeIx;
use super::shape::Shape;

/// That `reader` must come after `named`.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) named: NodeIx,
    pub(super) reader: NodeIx,
}

/// How many words of 64 named nodes are followed at once.
const WORDS: usize = 8;
type Bits = [u64; WORDS];

/// Which of the pairs do not hold.
///
/// All named nodes are followed down the graph at once, as bits, 512 at a time: `O(edges · named / 64)` steps.
pub(super) fn violations(shape: &Shape, pairs: &[Pair]) -> Vec<bool> {
    let is_direct = |pair: &Pair| {
        let incoming = shape.incoming.of(pair.reader).iter();
        incoming.take(64).any(|edge| shape.ends[*edge as usize].0 == pair.named)
    };
    let mut is_violated: Vec<bool> = pairs.iter().map(|pair| !is_direct(pair)).collect();
    let open: Vec<usize> = (0..pairs.len()).filter(|pair| is_violated[*pair]).collect();
    let mut columns: HashMap<NodeIx, usize> = HashMap::new();
    for pair in &open {
        let next = columns.len();
        columns.entry(pairs[*pair].named).or_insert(next);
    }
    let mut of_batch: Vec<Vec<usize>> = vec![Vec::new(); columns.len().div_ceil(WORDS * 64)];
    for pair in open {
        of_batch[columns[&pairs[pair].named] / (WORDS * 64)].push(pair);
    }
    for (batch, members) in of_batch.into_iter().enumerate() {
        let column = |node: NodeIx| {
            let column = columns.get(&node)?;
            (column / (WORDS * 64) == batch).then_some(column % (WORDS * 64))
        };
        let before = follow(shape, column);
        for pair in members {
            let Pair { named, reader } = pairs[pair];
            is_violated[pair] =
                !column(named).is_some_and(|column| has(&before[reader as usize], column));
        }
    }
    is_violated
}

/// For each node, which of the columns' nodes come before it.
fn follow(shape: &Shape, column: impl Fn(NodeIx) -> Option<usize>) -> Vec<Bits> {
    let mut before: Vec<Bits> = vec![[0; WORDS]; shape.groups.len().max(shape.by_id.len())];
    let nodes = shape.groups.iter().map(Vec::len).sum();
    before.resize(nodes, [0; WORDS]);
    for group in &shape.groups {
        let mut bits = [0; WORDS];
        for node in group {
            for edge in shape.incoming.of(*node) {
                let from = shape.ends[*edge as usize].0;
                let inherited = before[from as usize];
                bits.iter_mut().zip(inherited).for_each(|(bits, more)| *bits |= more);
                if let Some(column) = column(from) {
                    bits[column / 64] |= 1 << (column % 64);
                }
            }
        }
        for node in group {
            before[*node as usize] = bits;
        }
    }
    before
}

fn has(bits: &Bits, column: usize) -> bool {
    bits[column / 64] & (1 << (column % 64)) != 0
}

/// `; did you mean …?`, when a known id is close to one that is not.
pub(crate) fn did_you_mean<'a>(id: &str, known: impl Iterator<Item = &'a String>) -> String {
    let most = (id.chars().count() / 3).clamp(1, 3);
    known
        .map(|known| (distance(id, known, most), known))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, known)| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

/// The edit distance, or more than `most` when it is more.
fn distance(left: &str, right: &str, most: usize) -> usize {
    if left.len().abs_diff(right.len()) > most * 4 {
        return most + 1;
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, left) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, right) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
        if row.iter().all(|distance| *distance > most) {
            return most + 1;
        }
    }
    row[right.len()]
}

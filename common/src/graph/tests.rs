#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::json;

use super::shape::Shape;
use super::upstream::{Pair, violations};
use super::*;
use crate::pipeline::Edge;

fn definition(nodes: Value, edges: Value) -> Definition {
    serde_json::from_value(json!({"name": "test", "nodes": nodes, "edges": edges})).unwrap()
}

/// Nodes that do nothing, and edges between them.
fn plain(nodes: usize, edges: &[(usize, usize)]) -> Definition {
    let id = |n: usize| format!("n{n}");
    let mut definition = definition(json!([]), json!([]));
    definition.nodes = (0..nodes).map(|n| Node::new(id(n), NodeType::Parallel)).collect();
    definition.edges = edges
        .iter()
        .map(|(from, to)| Edge {
            id: None,
            from: id(*from),
            to: id(*to),
            condition: None,
            when: When::Success,
        })
        .collect();
    definition
}

fn example() -> Graph {
    Graph::compile(definition(
        json!([
            {"id": "start", "type": "trigger"},
            {"id": "a", "type": "action", "config": {"action": "echo", "x": "{{ input.x }}", "y": "{{ nodes.start.output }}"}},
            {"id": "if", "type": "condition", "config": {"expression": "nodes.a.output.x > nodes.start.output.y"}},
            {"id": "wait", "type": "delay", "config": {"duration": "{{ nodes.a.output.wait }}"}},
            {"id": "join", "type": "parallel"},
            {"id": "end", "type": "action", "config": {"action": "echo", "z": 1}},
        ]),
        json!([
            {"from": "start", "to": "a"},
            {"from": "a", "to": "if"},
            {"from": "if", "to": "wait"},
            {"from": "if", "to": "join", "condition": "not output.result and nodes.start.output.z"},
            {"from": "if", "to": "end", "when": "failure"},
            {"from": "wait", "to": "join"},
            {"from": "join", "to": "end"},
        ]),
    ))
    .unwrap()
}

#[test]
fn a_graph_answers_in_indices() {
    let graph = example();
    let ids =
        |ixs: &[NodeIx]| ixs.iter().map(|ix| graph.node(*ix).node.id.clone()).collect::<Vec<_>>();
    assert_eq!((graph.len(), graph.edge_count()), (6, 7));
    assert_eq!(
        (ids(graph.roots()), ids(graph.sinks())),
        (vec!["start".into()], vec!["end".into()])
    );
    let ix = |id| graph.index(id).unwrap();
    assert_eq!(graph.index("nope"), None);
    assert_eq!(
        (graph.outgoing(ix("if")), graph.incoming(ix("end"))),
        (&[2, 3, 4][..], &[4, 6][..])
    );
    assert!(graph.is_sink(ix("end")) && !graph.is_sink(ix("if")));
    assert_eq!((graph.edge(3).from, graph.edge(3).to), (ix("if"), ix("join")));
    let place = |ix| graph.order().iter().position(|at| *at == ix).unwrap();
    assert_eq!(graph.order().len(), graph.len());
    for edge in 0..graph.edge_count() as EdgeIx {
        assert!(place(graph.edge(edge).from) < place(graph.edge(edge).to));
    }
}

#[test]
fn a_graph_knows_what_is_read_where() {
    let graph = example();
    let ix = |id| graph.index(id).unwrap();
    let reads = |id| graph.node(ix(id)).reads.clone();
    assert_eq!(reads("a"), [ix("start")]);
    assert_eq!(reads("if"), [ix("start"), ix("a")], "its expression's, and its edges'");
    assert_eq!(reads("wait"), [ix("a")]);
    assert!(reads("end").is_empty());
    assert_eq!(graph.edge(3).reads, [ix("start")]);
    let named: Vec<_> = graph.order().iter().filter(|at| graph.is_named(**at)).copied().collect();
    assert_eq!(named, [ix("start"), ix("a")]);
}

#[test]
fn a_graph_knows_the_meaning_of_its_nodes_and_edges() {
    let graph = example();
    let ix = |id| graph.index(id).unwrap();
    let node = |id| graph.node(ix(id));
    assert_eq!((node("a").action.as_deref(), node("if").action.as_deref()), (Some("echo"), None));
    assert!(node("if").condition.is_some() && node("a").condition.is_none());
    assert_eq!(node("wait").passes_through, Some(ix("if")));
    assert_eq!(node("join").passes_through, None, "it has two predecessors");
    assert_eq!(node("a").passes_through, None, "an action does not hand on");
    let needs_result: Vec<_> = (0..7).map(|edge| graph.edge(edge).needs_result).collect();
    assert_eq!(needs_result, [false, false, true, false, false, false, false]);
    let twice = Graph::compile(plain(2, &[(0, 1), (0, 1)])).unwrap();
    assert_eq!(twice.node(1).passes_through, Some(0), "two edges, one predecessor");
}

#[test]
fn a_config_is_a_template_without_its_action() {
    let scope = crate::expression::Scope {
        input: &json!({"x": 7}),
        outputs: &HashMap::from([("start".to_owned(), json!([1]))]),
        run: &Value::Null,
        output: None,
        secrets: None,
        item: None,
    };
    let graph = example();
    let config = |id| graph.node(graph.index(id).unwrap()).config.render(&scope).unwrap();
    assert_eq!(config("a"), json!({"x": 7, "y": [1]}));
    assert_eq!(config("end"), json!({"z": 1}));
    let single = Graph::single(example().node(1).node.clone());
    assert!(single.unwrap_err()[0].detail.contains("a single action has none"));
    let single = Graph::single(example().node(5).node.clone()).unwrap();
    assert_eq!(single.node(0).config.render(&scope), Ok(json!({"z": 1})));
    assert_eq!(
        (single.order(), single.incoming(0), single.outgoing(0)),
        (&[0][..], &[][..], &[][..])
    );
    assert_eq!((single.index("end"), single.node(0).action.as_deref()), (Some(0), Some("echo")));
}

#[test]
fn every_cycle_is_named_with_its_path() {
    let errors = |nodes, edges: &[(usize, usize)]| Graph::compile(plain(nodes, edges)).unwrap_err();
    let found = errors(3, &[(0, 1), (1, 2), (2, 0)]);
    assert_eq!(
        found,
        [Pointed::new(
            "/edges/2",
            "the nodes form a cycle: n0 → n1 → n2 → n0; remove one of its edges"
        )]
    );
    let found = errors(6, &[(0, 1), (1, 0), (1, 2), (3, 4), (4, 5), (5, 3), (4, 3)]);
    let mut pointers: Vec<_> = found.iter().map(|error| error.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/edges/1", "/edges/6"], "one for each knot, the shortest: {found:?}");
    let ring: Vec<_> = (0..20_000).map(|n| (n, (n + 1) % 20_000)).collect();
    let found = errors(20_000, &ring);
    assert!(
        found.len() == 1 && found[0].detail.len() < 500 && found[0].detail.contains("→ … → n0"),
        "{found:?}"
    );
}

#[test]
fn a_chain_of_the_greatest_length_compiles() {
    let chain: Vec<_> = (1..20_000).map(|n| (n - 1, n)).collect();
    let compile = move || Graph::compile(plain(20_000, &chain)).unwrap().order().to_vec();
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(compile).unwrap();
    assert_eq!(thread.join().unwrap(), (0..20_000).collect::<Vec<_>>());
}

#[test]
fn compiling_keeps_names_of_what_comes_before() {
    let errors = |config: Value| {
        let nodes = json!([{"id": "a", "type": "parallel"}, {"id": "b", "type": "action", "config": config},
            {"id": "c", "type": "parallel"}]);
        Graph::compile(definition(
            nodes,
            json!([{"from": "a", "to": "b"}, {"from": "b", "to": "c"}]),
        ))
        .map_or_else(
            |errors| errors.into_iter().map(|error| error.pointer).collect(),
            |_| Vec::new(),
        )
    };
    assert_eq!(errors(json!({"x": "{{ nodes.a.output }}"})), Vec::<String>::new());
    assert_eq!(
        errors(
            json!({"x": "{{ nodes.c.output }}", "y": ["{{ nodes.b.output }} and {{ nodes.d.output }}"]})
        ),
        ["/nodes/1/config/y/0", "/nodes/1/config/y/0", "/nodes/1/config/x"]
    );
}

#[test]
fn graphs_are_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Graph>();
}

/// Whether a path leads from one node to another, the slow way.
fn leads(edges: &[(usize, usize)], from: usize, to: usize) -> bool {
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        for (_, next) in edges.iter().filter(|(from, _)| *from == at) {
            if *next == to {
                return true;
            }
            if seen.insert(*next) {
                open.push(*next);
            }
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With cycles as well: what is upstream is found either way.
    #[test]
    fn what_comes_before_is_what_a_path_leads_from(
        edges in proptest::collection::vec((0_usize..40, 0_usize..40), 0..90),
        pairs in proptest::collection::vec((0_usize..40, 0_usize..40), 0..60),
        // More named nodes than one batch follows at once.
        is_padded in any::<bool>(),
    ) {
        let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from != to).collect();
        let nodes = if is_padded { 700 } else { 40 };
        let shape = Shape::new(&plain(nodes, &edges));
        let padding = (40..nodes).map(|named| (named, 0));
        let pairs: Vec<_> = padding.chain(pairs).filter(|(named, reader)| named != reader).collect();
        let asked: Vec<_> =
            pairs.iter().map(|(named, reader)| Pair { named: *named as NodeIx, reader: *reader as NodeIx }).collect();
        let expected: Vec<_> = pairs.iter().map(|(named, reader)| !leads(&edges, *named, *reader)).collect();
        prop_assert_eq!(violations(&shape, &asked), expected);
    }

    #[test]
    fn a_graph_without_a_cycle_is_ordered_and_one_with_a_cycle_is_refused(
        edges in proptest::collection::vec((0_usize..12, 0_usize..12), 0..20),
    ) {
        let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from != to).collect();
        let has_cycle = (0..12).any(|node| leads(&edges, node, node));
        match Graph::compile(plain(12, &edges)) {
            Err(errors) => {
                prop_assert!(has_cycle);
                for error in errors {
                    let path = error.detail.split(": ").nth(1).unwrap().split(';').next().unwrap();
                    let path: Vec<usize> = path.split(" → ").map(|id| id[1..].parse().unwrap()).collect();
                    prop_assert!(path.windows(2).all(|step| edges.contains(&(step[0], step[1]))));
                    prop_assert_eq!(path.first(), path.last());
                    let place: usize = error.pointer.rsplit('/').next().unwrap().parse().unwrap();
                    let closing = &path[path.len() - 2..];
                    prop_assert_eq!(edges[place], (closing[0], closing[1]));
                }
            }
            Ok(graph) => {
                prop_assert!(!has_cycle);
                let place = |ix| graph.order().iter().position(|at| *at == ix).unwrap();
                prop_assert!(edges.iter().all(|(from, to)| place(*from as u32) < place(*to as u32)));
            }
        }
    }
}

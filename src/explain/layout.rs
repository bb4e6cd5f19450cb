//! Places for the boxes of a graph, in layers from top to bottom: operands above their users, few crossings, short edges.
//!
//! Layers by longest paths; an edge through several layers has a point in each; the order in a layer by the middle of the
//! neighbours, a few times down and up; places by least squares under the order (pool adjacent violators).

/// A box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size {
    pub width: f64,
    pub height: f64,
}

/// The picture: where boxes have their middle, and the points of each edge.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layout {
    pub boxes: Vec<(f64, f64)>,
    pub edges: Vec<Vec<(f64, f64)>>,
    pub width: f64,
    pub height: f64,
}

/// Between boxes of a layer.
const GAP: f64 = 18.0;
/// Between layers.
const RISE: f64 = 34.0;
/// The width that an edge takes on its way.
const WIRE: f64 = 8.0;
/// Times that the order of layers is improved, down and up.
const SWEEPS: usize = 6;
/// The same for places.
const PULLS: usize = 24;
/// Points of edges in all; beyond it edges are straight lines, or a picture of many long edges would have no end.
const MOST_POINTS: usize = 40_000;

/// A box, or a point of an edge.
struct Spot {
    layer: usize,
    width: f64,
    above: Vec<usize>,
    below: Vec<usize>,
    x: f64,
}

/// Lays out a graph without cycles. `edges` are from operands to users; those from later boxes to earlier ones are dropped.
pub(super) fn layout(sizes: &[Size], edges: &[(usize, usize)]) -> Layout {
    let layers = layers(sizes.len(), edges);
    let spot = |(i, s): (usize, &Size)| Spot { layer: layers[i], width: s.width, above: vec![], below: vec![], x: 0.0 };
    let mut spots: Vec<Spot> = sizes.iter().enumerate().map(spot).collect();
    let points: usize = edges.iter().map(|&(a, b)| layers[b].saturating_sub(layers[a] + 1)).sum();
    let mut routes: Vec<Vec<usize>> = Vec::with_capacity(edges.len());
    for &(a, b) in edges {
        let mut route = vec![a];
        if points <= MOST_POINTS {
            for layer in layers[a] + 1..layers[b] {
                spots.push(Spot { layer, width: WIRE, above: vec![], below: vec![], x: 0.0 });
                route.push(spots.len() - 1);
            }
        }
        route.push(b);
        if layers[a] < layers[b] {
            for pair in route.windows(2) {
                spots[pair[0]].below.push(pair[1]);
                spots[pair[1]].above.push(pair[0]);
            }
        }
        routes.push(route);
    }
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); spots.iter().map(|s| s.layer + 1).max().unwrap_or(0)];
    (0..spots.len()).for_each(|i| rows[spots[i].layer].push(i));
    order(&mut spots, &mut rows);
    place(&mut spots, &rows);
    finish(sizes, &spots, &rows, &routes)
}

/// The layer of each box: below all its operands. Boxes without operands, and those with one such operand (a parameter,
/// broadcast), stand right above their first user.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let (mut operands, mut first) = (vec![Vec::new(); count], vec![usize::MAX; count]);
    edges.iter().filter(|(a, b)| a < b).for_each(|&(a, b)| operands[b].push(a));
    let (mut layer, mut light) = (vec![0usize; count], vec![false; count]);
    for i in 0..count {
        layer[i] = operands[i].iter().map(|&a| layer[a] + 1).max().unwrap_or(0);
        light[i] = operands[i].len() <= 1 && operands[i].iter().all(|&a| light[a]);
    }
    for i in (0..count).rev() {
        if light[i] && first[i] != usize::MAX {
            layer[i] = layer[i].max(first[i].saturating_sub(1));
        }
        operands[i].iter().for_each(|&a| first[a] = first[a].min(layer[i]));
    }
    layer
}

/// Orders each row by the middle of its neighbours in the row before, down and up.
fn order(spots: &mut [Spot], rows: &mut [Vec<usize>]) {
    rows.iter().for_each(|row| row.iter().enumerate().for_each(|(i, &s)| spots[s].x = i as f64));
    for sweep in 0..2 * SWEEPS {
        let down = sweep.is_multiple_of(2);
        let count = rows.len();
        for r in 0..count {
            let row = &mut rows[if down { r } else { count - 1 - r }];
            let middle = |s: usize| mean(spots, if down { &spots[s].above } else { &spots[s].below }, spots[s].x);
            let mut keyed: Vec<(f64, usize)> = row.iter().map(|&s| (middle(s), s)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            *row = keyed.into_iter().map(|k| k.1).collect();
            row.iter().enumerate().for_each(|(i, &s)| spots[s].x = i as f64);
        }
    }
}

fn mean(spots: &[Spot], of: &[usize], otherwise: f64) -> f64 {
    if of.is_empty() { otherwise } else { of.iter().map(|&s| spots[s].x).sum::<f64>() / of.len() as f64 }
}

/// Moves each row as near to its neighbours as its order allows.
fn place(spots: &mut [Spot], rows: &[Vec<usize>]) {
    for row in rows {
        let mut x = 0.0;
        for &s in row {
            x += spots[s].width / 2.0;
            spots[s].x = x;
            x += spots[s].width / 2.0 + GAP;
        }
    }
    for sweep in 0..2 * PULLS {
        let count = rows.len();
        for r in 0..count {
            let row = &rows[if sweep.is_multiple_of(2) { r } else { count - 1 - r }];
            let near = |s: usize| {
                let both: Vec<usize> = spots[s].above.iter().chain(&spots[s].below).copied().collect();
                mean(spots, &both, spots[s].x)
            };
            // Distances from the first of the row, with gaps.
            let mut offset = 0.0;
            let mut wanted = Vec::with_capacity(row.len());
            for (i, &s) in row.iter().enumerate() {
                if let Some(before) = i.checked_sub(1).and_then(|b| row.get(b)) {
                    offset += (spots[*before].width + spots[s].width) / 2.0 + GAP;
                }
                wanted.push((near(s) - offset, offset));
            }
            let fitted = ascending(&wanted.iter().map(|w| w.0).collect::<Vec<_>>());
            for ((&s, w), x) in row.iter().zip(&wanted).zip(fitted) {
                spots[s].x = x + w.1;
            }
        }
    }
}

/// The ascending numbers nearest to `wanted`, by least squares.
fn ascending(wanted: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for &w in wanted {
        let mut pool = (w, 1);
        while let Some(&(sum, count)) = pools.last() {
            if sum / (count as f64) <= pool.0 / pool.1 as f64 {
                break;
            }
            pools.pop();
            pool = (pool.0 + sum, pool.1 + count);
        }
        pools.push(pool);
    }
    pools.into_iter().flat_map(|(sum, count)| std::iter::repeat_n(sum / count as f64, count)).collect()
}

/// Coordinates from 0, rows as high as their boxes.
fn finish(sizes: &[Size], spots: &[Spot], rows: &[Vec<usize>], routes: &[Vec<usize>]) -> Layout {
    let left = spots.iter().map(|s| s.x - s.width / 2.0).fold(f64::INFINITY, f64::min);
    let left = if left.is_finite() { left } else { 0.0 };
    let mut middles = Vec::with_capacity(rows.len());
    let mut y = 0.0;
    for row in rows {
        let high = row.iter().filter_map(|&s| sizes.get(s)).map(|s| s.height).fold(0.0, f64::max);
        middles.push(y + high / 2.0);
        y += high + RISE;
    }
    let at = |s: usize| (spots[s].x - left, middles[spots[s].layer]);
    let edge = |route: &Vec<usize>| route.iter().map(|&s| at(s)).collect();
    let width = spots.iter().map(|s| s.x + s.width / 2.0).fold(0.0, f64::max) - left;
    Layout {
        boxes: (0..sizes.len()).map(at).collect(),
        edges: routes.iter().map(edge).collect(),
        width: width.max(1.0),
        height: (y - RISE).max(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::{GAP, Size, ascending, layout};

    #[test]
    fn boxes_of_a_row_do_not_overlap_and_users_are_below() {
        let sizes: Vec<Size> = (0..40).map(|i| Size { width: 30.0 + f64::from(i % 7) * 20.0, height: 20.0 }).collect();
        let edges: Vec<(usize, usize)> = (1..40).flat_map(|b| [(b / 2, b), (b / 3, b)]).filter(|e| e.0 < e.1).collect();
        let made = layout(&sizes, &edges);
        for (a, b) in &edges {
            assert!(made.boxes[*a].1 < made.boxes[*b].1);
        }
        for i in 0..40 {
            assert!(made.boxes[i].0 >= sizes[i].width / 2.0 - 1e-6 && made.boxes[i].0 <= made.width);
            for j in 0..i {
                let apart = (made.boxes[i].0 - made.boxes[j].0).abs();
                let room = (sizes[i].width + sizes[j].width) / 2.0 + GAP;
                assert!(made.boxes[i].1 != made.boxes[j].1 || apart >= room - 1e-6, "{i} and {j}");
            }
        }
        for (edge, (a, b)) in made.edges.iter().zip(&edges) {
            assert_eq!((edge.first(), edge.last()), (Some(&made.boxes[*a]), Some(&made.boxes[*b])));
        }
    }

    #[test]
    fn the_nearest_ascending_numbers() {
        assert_eq!(ascending(&[1.0, 3.0, 2.0, 9.0]), [1.0, 2.5, 2.5, 9.0]);
        assert_eq!(ascending(&[3.0, 2.0, 1.0]), [2.0, 2.0, 2.0]);
    }

    #[test]
    fn nothing_is_a_small_picture() {
        assert_eq!(layout(&[], &[]).width, 1.0);
    }
}

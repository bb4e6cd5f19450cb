//! Transforms on Graph IR: e-graph rewriting, fusion, cost model, schedules.

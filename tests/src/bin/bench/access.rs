//! What accounts, limits and audit cost.

use serde_json::{Value, json};

use crate::report::rounded;
use crate::{Arguments, throughput};

/// W1 in pairs: by an operator's token without limits, whom nothing is looked up or counted for, and by a user who
/// signed in, whose standing is looked up and whose requests are counted. Who goes first alternates; the cost is the
/// median of the pairs', so that a machine that becomes slower meanwhile does not count for either.
pub(crate) async fn pairs(arguments: &Arguments) -> Value {
    let mut rates = [Vec::new(), Vec::new()];
    for pair in 0..5 {
        for side in [pair % 2, 1 - pair % 2] {
            let arguments = Arguments { signs_in: side == 1, ..arguments.clone() };
            let line = throughput::actions(&arguments).await;
            rates[side].push(line["rate"].as_f64().unwrap_or_default());
        }
    }
    let [without, with] = rates.each_ref().map(|rates| median(rates));
    let costs: Vec<f64> =
        rates[0].iter().zip(&rates[1]).map(|(without, with)| 1.0 - with / without).collect();
    json!({
        "workload": "access",
        "unit": "actions/s",
        "rate": rounded(with, 1),
        "rate_without": rounded(without, 1),
        "cost": rounded(median(&costs), 4),
        "rates": rates[1],
        "rates_without": rates[0],
    })
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

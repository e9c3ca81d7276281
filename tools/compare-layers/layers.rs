//! The residual stream of a model after each layer, as lines of JSON: `layers MODEL TOKEN...`; see README.md here.

use std::io::Write;

use clawdbot_core::Source;
use clawdbot_core::layer_trace::trace;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: layers MODEL TOKEN...")?;
    let tokens = arguments.map(|token| token.parse()).collect::<Result<Vec<u32>, _>>()?;
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    trace(&Source::Path(model.into()), &tokens, |layers, states| {
        let line = format!("{{\"layers\": {layers}, \"states\": {states:?}}}");
        written = std::mem::replace(&mut written, Ok(())).and_then(|()| writeln!(out, "{line}"));
    })?;
    Ok(written?)
}

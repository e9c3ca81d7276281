use clawdbot_core::*;
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let w: WeightType = a[2].parse().unwrap();
    let rt = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    let t = Instant::now();
    let m = rt.load(&Source::Shape(a[1].clone()), &ModelOptions::default().weights(w)).unwrap();
    println!(
        "{} load {:.2}s weights {} MB",
        rt.kernels(),
        t.elapsed().as_secs_f64(),
        m.info().plan.weights_bytes / 1_000_000
    );
    if a.len() > 3 {
        println!("{:?}", rt.measure_limits().unwrap());
    }
    for _ in 0..3 {
        let prompt: Vec<u32> = (0..512).map(|i| 300 + i * 7 % 1600).collect();
        let c = m.generate(prompt, &GenerateOptions::default().max_tokens(33_u32).temperature(0.0)).unwrap();
        println!(
            "prefill {:.1} tok/s decode {:.2} tok/s = {:.1} GB/s",
            c.usage.prefill_tokens_per_s(),
            c.usage.decode_tokens_per_s(),
            c.usage.decode_tokens_per_s() * m.info().plan.weights_bytes as f64 / 1e9
        );
    }
}

//! The length of a run: longer or shorter than it was to be, warm-ups and decays that do not fit, sequences as long as a model takes.

use super::cli::{CONFIG, checkpoints, done, fails, folder, losses, model, run};

fn said(output: &std::process::Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_run_becomes_longer_and_shorter() {
    let write = |folder: &tempfile::TempDir, steps: &str| {
        std::fs::write(folder.path().join("run.toml"), CONFIG.replace("steps = 12", steps)).unwrap();
    };
    let longer = folder(CONFIG);
    let first = run(longer.path(), &[]);
    done(&first);
    let before = losses(longer.path());
    write(&longer, "steps = 15");
    let second = run(longer.path(), &[]);
    done(&second);
    let told = "the run was to have 12 steps and has 15 now, and so has its schedule of rates";
    assert!(said(&second).contains(told) && !said(&first).contains("was to have"), "{}", said(&second));
    let after = losses(longer.path());
    assert!(after.len() == 15 && after[..12] == before[..], "{after:?}");
    // Steps that are done stay done.
    write(&longer, "steps = 14");
    fails(&run(longer.path(), &[]), &["error[train-config]: train.steps: expected at least 15", "found 14"]);
    // Nothing but the length may be another.
    let other = CONFIG.replace("steps = 12", "steps = 20").replace("peak = 0.02", "peak = 0.03");
    std::fs::write(longer.path().join("run.toml"), other).unwrap();
    fails(&run(longer.path(), &[]), &["error[checkpoint]", "expected `schedule`"]);

    // A rate that does not depend on the length: a run that became longer, or shorter, has the bits of one that always was so.
    let constant =
        |steps: &str| CONFIG.replace("[schedule]", "[schedule]\nkind = \"constant\"").replace("steps = 12", steps);
    let (always, grown, cut) =
        (folder(&constant("steps = 9")), folder(&constant("steps = 6")), folder(&constant("steps = 30")));
    done(&run(always.path(), &[]));
    done(&run(grown.path(), &[]));
    done(&run(cut.path(), &["--until", "7"]));
    for folder in [&grown, &cut] {
        std::fs::write(folder.path().join("run.toml"), constant("steps = 9")).unwrap();
        done(&run(folder.path(), &[]));
        assert!(model(always.path()) == model(folder.path()), "the models differ");
        // The checkpoint is one of the run as it is now.
        let again = run(folder.path(), &[]);
        done(&again);
        assert!(!said(&again).contains("was to have"), "{}", said(&again));
    }
}

#[test]
fn a_run_that_stops_has_drawn_its_losses() {
    let folder = folder(CONFIG);
    done(&run(folder.path(), &["--until", "4"]));
    assert!(!checkpoints(folder.path()).is_empty());
    let drawn = std::fs::read_to_string(folder.path().join("out/loss.svg")).unwrap();
    assert!(drawn.contains("<polyline") && drawn.ends_with("</svg>\n"), "{drawn}");
    let left = std::fs::read_dir(folder.path().join("out")).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = left.filter(|n| n.to_string_lossy().contains("part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn warm_ups_and_decays_fit_into_the_run() {
    for (from, to, part) in [
        ("warmup = 3", "warmup = 13", "schedule.warmup: expected at most 12, which is train.steps, found 13"),
        (
            "warmup = 3",
            "warmup = 3\nkind = \"wsd\"\ndecay = 10",
            "schedule.decay: expected at most 9, which is train.steps less schedule.warmup, found 10",
        ),
    ] {
        let folder = folder(&CONFIG.replace(from, to));
        fails(&run(folder.path(), &[]), &["error[train-config]", part, "run.toml"]);
    }
    let fits = folder(&CONFIG.replace("warmup = 3", "warmup = 3\nkind = \"wsd\"\ndecay = 9"));
    done(&run(fits.path(), &["--until", "1"]));
}

#[test]
fn sequences_are_as_long_as_the_model_takes_unless_they_are_said() {
    let first = folder(CONFIG);
    done(&run(first.path(), &["--until", "0"]));
    done(&run(first.path(), &["--export", "last"]));
    let rest = CONFIG.split_once("[data]").unwrap().1;
    let from = format!("out = \"out\"\n[model]\nfrom = {:?}\n", first.path().join("out"));
    let (absent, given) = (format!("{from}[data]{rest}"), format!("{from}context = 16\n[data]{rest}"));
    let (taken, told) = (folder(&absent), folder(&given));
    done(&run(taken.path(), &["--until", "3"]));
    done(&run(told.path(), &["--until", "3"]));
    assert_eq!(losses(taken.path()), losses(told.path()));
    // It is the same run, whether it is said or not.
    std::fs::write(taken.path().join("run.toml"), given).unwrap();
    done(&run(taken.path(), &["--until", "4"]));
    let sized = folder(&CONFIG.replace("context = 16\n", ""));
    fails(
        &run(sized.path(), &[]),
        &["error[train-config]: model.context: expected a value, or a folder as model.from"],
    );
}

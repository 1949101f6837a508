//! What a process has used, as the system accounts for it.

use super::BoxError;
use super::protocol::Usage;

/// CPU seconds and resident bytes of this process.
pub(crate) fn of_this_process() -> Result<Usage, BoxError> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name in parentheses, which may hold spaces.
    let fields: Vec<&str> =
        stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?.1.split_whitespace().collect();
    let number = |index: usize| -> Result<f64, BoxError> {
        Ok(fields.get(index).ok_or("/proc/self/stat is short")?.parse()?)
    };
    // utime and stime, fields 14 and 15 of proc_pid_stat(5), in hundredths of a second on every Linux in use.
    let cpu_seconds = (number(11)? + number(12)?) / 100.0;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let bytes = |name: &str| -> Result<u64, BoxError> {
        let rest = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
        let kibibytes: u64 =
            rest.ok_or_else(|| format!("/proc/self/status has no {name}"))?.trim().parse()?;
        Ok(kibibytes * 1024)
    };
    let (resident_bytes, resident_peak_bytes) = (bytes("VmRSS:")?, bytes("VmHWM:")?);
    Ok(Usage { cpu_seconds, resident_bytes, resident_peak_bytes })
}

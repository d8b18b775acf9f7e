"""The POSIX shell script of `probe`: it runs where there is nothing but a shell.

Arguments: nonce, root, python, directory, depth (state | facts | load), shell budget of the load.
Every section begins with a line `@<nonce> <name>`; a file's content cannot forge one, since the
nonce is new each time. Every tool may be missing, everything is bounded, nothing reads stdin.
"""

SCRIPT = r"""
exec 2>/dev/null </dev/null
N=$1 R=$2 P=$3 D=$4 DEPTH=$5 SPINS=$6
# Another root's tools come first; else the order is the user's own, as when the agent is started.
PATH=${R:+$R/usr/bin:$R/opt/vc/bin:}$PATH:/usr/bin:/bin:/opt/vc/bin:/usr/sbin:/sbin:/system/bin
LC_ALL=C
export PATH LC_ALL

has() { command -v "$1" >/dev/null; }
# BusyBox up to 1.29 takes the seconds as an option only.
T=
if has timeout; then
    if timeout 5 true; then T=timeout; elif timeout -t 5 true; then T='timeout -t'; fi
fi
limit() { if [ -n "$T" ]; then $T "$@"; else shift; "$@"; fi; }
section() { printf '\n@%s %s\n' "$N" "$1"; }
text() {
    [ -r "$R$2" ] || return
    section "$1"
    head -c 65536 "$R$2" | tr '\000' '\n'
}
says() {
    name=$1
    shift
    has "$1" || return
    section "$name"
    limit 5 "$@" | head -c 262144
}
word() { w=; read -r w <"$1"; printf '%s ' "${w:--}"; }

section identity
printf '%s\n' "$$" "$(id -u)" "$(id -Gn)" "$HOME"
says uname uname -srm
says machine uname -m
says bits getconf LONG_BIT
says now date +%s
text loadavg /proc/loadavg
text uptime /proc/uptime
text boot_id /proc/sys/kernel/random/boot_id
text meminfo /proc/meminfo

section zones
for z in "$R"/sys/class/thermal/thermal_zone*; do
    [ -r "$z/temp" ] || continue
    word "$z/temp"; word "$z/type"; printf '\t'; word "$z/mode"; printf '\t%s\n' "${z##*_zone}"
done
section fans
for f in "$R"/sys/class/hwmon/hwmon*/pwm1; do
    [ -r "$f" ] && { word "$f"; echo; }
done
clocks() {
    for c in "$R"/sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
        [ -r "$c/cpuinfo_max_freq" ] || [ -r "$c/scaling_cur_freq" ] || continue
        for k in scaling_cur_freq cpuinfo_max_freq cpuinfo_min_freq scaling_governor; do
            word "$c/$k"
        done
        c=${c%/cpufreq}
        echo "${c##*/cpu}"
    done
}
section cpufreq
clocks
says measure_temp vcgencmd measure_temp
says measure_clock vcgencmd measure_clock arm
says get_throttled vcgencmd get_throttled

section directory
d=$D
while [ -n "$d" ] && [ ! -e "$d" ]; do d=${d%/*}; done
d=${d:-/}
w=no
[ -w "$d" ] && w=yes
printf '%s\n%s\n' "$d" "$w"
says disk df -Pk "$d"
if [ -r /proc/self/mounts ]; then
    section mount
    p=$(cd "$d" && pwd -P)
    at= how=
    while read -r _ point _ options _; do
        point=$(printf %b "$point")
        case ${p%/}/ in
        "${point%/}"/*) [ ${#point} -ge ${#at} ] && at=$point how=$options ;;
        esac
    done </proc/self/mounts
    printf '%s\n%s\n' "$at" "$how"
fi
if has getprop; then
    says battery dumpsys battery
    says thermalservice dumpsys thermalservice
fi

if [ "$DEPTH" != state ]; then
    text cpuinfo /proc/cpuinfo
    text model /proc/device-tree/model
    text compatible /proc/device-tree/compatible
    text serial /proc/device-tree/serial-number
    text os_release /etc/os-release
    text machine_id /etc/machine-id
    says libc getconf GNU_LIBC_VERSION
    says getprop getprop
    has settings && says low_power settings get global low_power
    text power_profile /sys/firmware/acpi/platform_profile
    section pythons
    for p in "$P" python3 python3.9 python3.10 python3.11 python3.12 python3.13 python3.14; do
        [ -n "$p" ] && has "$p" || continue
        printf '%s\t' "$p"
        limit 10 "$p" -c 'import struct, sys
print("%s\t%d\t%s" % (sys.version.split()[0], 8 * struct.calcsize("P"), sys.executable))' |
            head -c 1000
        echo
    done
    section leftovers
    for p in "$D"/jobs/*.json "$D"/incoming/*; do
        [ -e "$p" ] && echo "${p#"$D"/}"
    done | head -n 100
fi

if [ "$DEPTH" = load ]; then
    spin() { i=0; while [ $i -lt "$SPINS" ]; do i=$((i + 1)); done; }
    section processes_before
    head -n 1 "$R/proc/stat"
    cat "$R"/proc/[0-9]*/stat | head -c 262144
    sleep 1
    section processes_after
    head -n 1 "$R/proc/stat"
    cat "$R"/proc/[0-9]*/stat | head -c 262144
    section owners
    ls -ld "$R"/proc/[0-9]* | head -c 262144
    spin &
    sleep 1
    section load_cpufreq
    clocks
    says load_clock vcgencmd measure_clock arm
    says load_throttled vcgencmd get_throttled
    kill $!
    wait
fi
section end
"""

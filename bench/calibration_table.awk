# The table of compare_calibration.sh from its rows: "float COUNT S MB", "ours|peer METHOD COUNT S MB".
$1 == "float" { plain[$2] = $3; counts[++n] = $2 }
$1 == "ours" {
  if (!($2 in seen)) { seen[$2] = 1; methods[++m] = $2 }
  seconds[$2, $3] = $4
  mb[$2, $3] = $5
}
$1 == "peer" && $4 ~ /^[0-9]/ { peer_seconds[$2, $3] = $4; peer_mb[$2, $3] = $5; next }
$1 == "peer" { why[$2, $3] = $4 (NF > 4 ? " " $5 " " $6 : "") }
END {
  printf "%-16s %6s  %10s %8s  %10s %8s  %6s %6s\n", "method", "images", "onnxpress", "MB", "peer", "MB", "time", "memory"
  for (i = 1; i <= m; ++i)
    for (k = 1; k <= n; ++k) {
      method = methods[i]; count = counts[k]; at = method SUBSEP count
      printf "%-16s %6d  %8.2f s %8d  ", method, count, seconds[at], mb[at]
      if (at in peer_seconds)
        printf "%8.2f s %8d  %5.1fx %5.1fx\n", peer_seconds[at], peer_mb[at], peer_seconds[at] / seconds[at],
               peer_mb[at] / mb[at]
      else
        printf "%s\n", why[at]
    }
  for (k = 1; k <= n; ++k)
    printf "%-16s %6d  %8.2f s  (inference alone)\n", "float", counts[k], plain[counts[k]]
  if (n < 2) exit
  few = counts[1]; many = counts[n]; each = (plain[many] - plain[few]) / (many - few)
  printf "\nper image, %d threads: float %.1f ms", threads, each * 1000
  for (i = 1; i <= m; ++i) {
    mine = (seconds[methods[i], many] - seconds[methods[i], few]) / (many - few)
    printf "; %s %.1f ms = %.2fx", methods[i], mine * 1000, mine / each
  }
  printf "\nmemory, %d to %d images:", few, many
  for (i = 1; i <= m; ++i) printf " %s %.2fx", methods[i], mb[methods[i], many] / mb[methods[i], few]
  printf "\n"
}

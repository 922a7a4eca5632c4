#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# npm on pmfs, without a network: packages packed, installed with their dependencies and programs, run, installed again from the lock file.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need npm node

M=$T/mnt
mount_pmfs ram "$M" size=1G
export HOME=$M/home npm_config_cache=$M/cache npm_config_offline=true npm_config_audit=false npm_config_fund=false \
	npm_config_update_notifier=false npm_config_loglevel=error
mkdir "$M/home" "$M/packs"

say "a library and a program that needs it, as archives"
mkdir -p "$M/lib" "$M/tool"
echo '{"name":"lib","version":"1.2.3","main":"index.js"}' >"$M/lib/package.json"
echo 'module.exports = n => n * 2;' >"$M/lib/index.js"
for n in $(seq 100); do
	mkdir -p "$M/lib/data/$((n % 10))"
	echo "module.exports = $n;" >"$M/lib/data/$((n % 10))/n$n.js"
done
(cd "$M/lib" && npm pack --silent --pack-destination "$M/packs" >/dev/null)
echo "{\"name\":\"tool\",\"version\":\"0.1.0\",\"bin\":{\"twice\":\"twice.js\"},\"dependencies\":{\"lib\":\"file:$M/packs/lib-1.2.3.tgz\"}}" \
	>"$M/tool/package.json"
printf '#!/usr/bin/env node\nconsole.log(require("lib")(Number(process.argv[2])), require("lib/data/7/n17.js"));\n' >"$M/tool/twice.js"
(cd "$M/tool" && npm pack --silent --pack-destination "$M/packs" >/dev/null)

say "installed, run by name, checked"
mkdir "$M/app"
cd "$M/app"
echo '{"name":"app","version":"1.0.0","scripts":{"go":"twice 21"}}' >package.json
npm install --silent "$M/packs/tool-0.1.0.tgz"
expect_equal "$(npm run --silent go)" '42 17' "what the program says"
[ -L node_modules/.bin/twice ] || fail "npm made no link to the program"
npm ls --all >/dev/null || fail "npm ls finds a broken tree"
expect_equal "$(find node_modules/lib/data -type f | wc -l)" 100 "files of the library"

say "from the lock file, into nothing"
cp -r node_modules/lib "$T/lib"
npm ci --silent
diff -r "$T/lib" node_modules/lib || fail "npm ci installs something else"
expect_equal "$(npm run --silent go)" '42 17' "what the program says after npm ci"
npm cache verify >/dev/null || fail "npm's cache is damaged"
cd "$T"
umount_pmfs "$M"

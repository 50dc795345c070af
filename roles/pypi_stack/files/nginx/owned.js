/* Whose a name is, by the register beside the packages and its copy beside the pages (static_index/owned.py). */
import fs from 'fs';

const REGISTERS = ['/data/known/packages/.owned', '/data/known/index/.owned'];
const SEAL = '~seal'; // no project has such a name
const SETTLED = 2000; // milliseconds after which a change can be told from the one before by its time, on any file system
const HOLDS = 1000;

/* What a finding is bound to: a name that is entered in one of the registers makes all older ones unreachable. A look at a file that is
 * not there costs twice as much as the rest of a request, so one worker looks ten times a second (js_periodic) whether anything has
 * changed. Without a seal, as while names are being entered, each request looks for itself. */
function look() {
    try {
        const settled = Date.now() - SETTLED;
        const identity = REGISTERS.map(function (path) {
            const register = fs.statSync(path);
            if (Math.max(register.mtimeMs, register.ctimeMs) > settled) {
                throw new Error('changed just now');
            }
            return [register.dev, register.ino, register.mtimeMs, register.ctimeMs].join('.');
        });
        ngx.shared.names.set(SEAL, identity.join(' '), HOLDS);
    } catch (error) {
        ngx.shared.names.delete(SEAL);
    }
}

/* Raises an error for what cannot be read: nginx's own -f takes that for a file that is not there. A name longer than a file's may be is
 * nobody's. */
function there(path) {
    try {
        fs.statSync(path);
        return true;
    } catch (error) {
        if (error.code == 'ENOENT' || error.code == 'ENAMETOOLONG') {
            return false;
        }
        throw error;
    }
}

/* $owner of a project: `us`, `others`, or `unknown`. That a name is others' is remembered under the seal from before the look. */
function owner(r) {
    const project = r.variables.public_project || r.variables.public_document;
    const seal = ngx.shared.names.get(SEAL);
    if (seal && ngx.shared.names.get(project) == seal) {
        return 'others';
    }
    try {
        if (REGISTERS.some((register) => there(`${register}/${project}`))) {
            return 'us';
        }
        if (!there(`${REGISTERS[0]}/~complete`)) {
            return 'unknown';
        }
    } catch (error) {
        r.error(`owned: ${error.message}`);
        return 'unknown';
    }
    remember(r, project, seal);
    return 'others';
}

/* A memory that cannot keep it is no reason to refuse. */
function remember(r, project, seal) {
    try {
        if (seal) {
            ngx.shared.names.set(project, seal);
        }
    } catch (error) {
        r.warn(`owned: ${project.slice(0, 100)} is not remembered: ${error.message}`);
    }
}

export default {look, owner};

/* Whose a name is, by the register beside the packages and its copy beside the pages (static_index/owned.py). */
import fs from 'fs';

const REGISTERS = ['/data/known/packages/.owned', '/data/known/index/.owned'];

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

/* $owner of a project: `us`, `others`, or `unknown`. */
function owner(r) {
    const project = r.variables.public_project || r.variables.public_document;
    try {
        if (REGISTERS.some((register) => there(`${register}/${project}`))) {
            return 'us';
        }
        return there(`${REGISTERS[0]}/~complete`) ? 'others' : 'unknown';
    } catch (error) {
        r.error(`owned: ${error.message}`);
        return 'unknown';
    }
}

export default {owner};

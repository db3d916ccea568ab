import com.jcraft.jsch.ChannelSftp;
import com.jcraft.jsch.JSch;
import com.jcraft.jsch.Session;
import java.util.ArrayList;
import java.util.List;

/** JSch, the maintained line (com.github.mwiede). */
final class WithJsch implements Main.Client {
    private final Session session;
    private final ChannelSftp sftp;

    WithJsch() throws Exception {
        JSch jsch = new JSch();
        jsch.setKnownHosts(Main.KNOWN_HOSTS);
        jsch.addIdentity(Main.KEY);
        session = jsch.getSession(Main.USER, Main.HOST, Main.PORT);
        session.connect(20_000);
        sftp = (ChannelSftp) session.openChannel("sftp");
        sftp.connect(20_000);
    }

    /** Its paths may hold wildcards, so they are escaped. */
    private static String path(String remote) {
        return remote.replaceAll("([\\\\*?])", "\\\\$1");
    }

    @Override
    public void put(String local, String remote) throws Exception {
        sftp.put(local, path(remote));
    }

    @Override
    public void setTimes(String local, String remote) throws Exception {
        sftp.setMtime(path(remote), (int) Main.written(local));
    }

    @Override
    public void rename(String from, String to) throws Exception {
        sftp.rename(path(from), path(to));
    }

    @Override
    public long size(String remote) throws Exception {
        return sftp.stat(path(remote)).getSize();
    }

    @Override
    public void resume(String local, String remote) throws Exception {
        sftp.put(local, path(remote), ChannelSftp.RESUME);
    }

    @Override
    public void mkdir(String remote) throws Exception {
        sftp.mkdir(remote);
    }

    @Override
    public List<String> list(String remote) throws Exception {
        List<String> lines = new ArrayList<>();
        for (ChannelSftp.LsEntry entry : sftp.ls(path(remote))) {
            lines.add(entry.getAttrs().getSize() + " " + entry.getFilename());
        }
        return lines;
    }

    @Override
    public void get(String remote, String local) throws Exception {
        sftp.get(path(remote), local);
    }

    @Override
    public void remove(String remote) throws Exception {
        sftp.rm(path(remote));
    }

    @Override
    public void close() {
        session.disconnect();
    }
}
